from __future__ import annotations

import enum
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.errors import BundleError, InputError
from tightrope.inputs.prepare.pixels import SquarePixels
from tightrope.runtime.prompt import render_and_encode
from tightrope.runtime.template import ChatTemplate
from tightrope.runtime.tokenizer import Tokenizer

MakeTokenizer = Callable[..., Tokenizer]
Backends = dict[str, Callable[[], tokenizers.Tokenizer]]
Names = dict[str, dict[str, str]]
PAD = "<|image_pad|>"

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}"
    "{{ m['content'] }}{% else %}{% for p in m['content'] %}{% if p['type'] == 'image' %}"
    "<|vision|><|image_pad|><|vision|>{% else %}{{ p['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STRINGS_ONLY = (
    "{% for m in messages %}<|im_start|>{{ m['role'] + '\n' + m['content'] | trim }}<|im_end|>\n"
    "{% endfor %}<|im_start|>assistant"
)
IMAGES_FIRST = (
    "{% for m in messages %}<|im_start|>{% for p in m['content'] | selectattr('type', 'equalto',"
    " 'image') %}<|image_pad|>{% endfor %}{% for p in m['content'] | selectattr('type', 'equalto',"
    " 'text') %}{{ p['text'] | trim }}{% endfor %}<|im_end|>{% endfor %}"
)


def text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


IMAGE = {"type": "image"}


@pytest.fixture
def reference(reference_folder: Path, special_tokens: Names) -> ChatTemplate:
    source = (reference_folder / "chat_template.jinja").read_text()
    return ChatTemplate(source, special_tokens["reference"])


@pytest.fixture
def tokenizer(make_tokenizer: MakeTokenizer) -> Tokenizer:
    return make_tokenizer("byte_level")


@pytest.fixture(scope="module")
def transformers() -> Any:
    return pytest.importorskip("transformers", reason="the oracle is Hugging Face's own code")


@pytest.fixture(scope="module")
def llava(
    transformers: Any, reference_folder: Path, backends: Backends, special_tokens: Names
) -> Any:
    stored = json.loads((reference_folder / "processor_config.json").read_text())
    image_options = stored.pop("image_processor")
    image_options.pop("image_processor_type")
    stored.pop("processor_class")
    names = dict(special_tokens["reference"])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backends["reference"](),
        extra_special_tokens={"image_token": names.pop("image_token")},
        **names,
    )
    return transformers.LlavaProcessor(
        image_processor=transformers.CLIPImageProcessorPil(**image_options),
        tokenizer=fast,
        chat_template=(reference_folder / "chat_template.jinja").read_text(),
        **stored,
    )


@pytest.mark.parametrize("num_images", [0, 1, 2])
def test_the_reference_prompt_and_pixels_equal_hugging_face(
    num_images: int,
    llava: Any,
    reference: ChatTemplate,
    make_tokenizer: MakeTokenizer,
    reference_folder: Path,
) -> None:
    rng = np.random.default_rng(0)
    images = [
        PIL.Image.fromarray(rng.integers(0, 256, (50 + 40 * i, 90, 3), np.uint8))
        for i in range(num_images)
    ]
    question = text("what colour is the circle ?")
    theirs = llava.apply_chat_template(
        [{"role": "user", "content": [*({**IMAGE, "image": i} for i in images), question]}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="np",
    )
    expected = [
        token_id
        for token_id, run in itertools.groupby(theirs["input_ids"][0].tolist())
        for _ in range(len(list(run)) // (576 if token_id == 4 else 1))
    ]
    ours = render_and_encode(
        reference,
        make_tokenizer("reference", add_special_tokens=True),
        [{"role": "user", "content": [*[IMAGE] * num_images, question]}],
        "<image>",
        num_images,
    )
    assert ours.count(4) == num_images
    assert ours == expected
    if images:
        stored = json.loads((reference_folder / "processor_config.json").read_text())
        config = dict(stored["image_processor"])
        del config["image_processor_type"]
        np.testing.assert_array_equal(SquarePixels(config)(images, 336), theirs["pixel_values"])


@pytest.mark.parametrize("template", [CHATML, STRINGS_ONLY])
def test_a_chat_is_encoded_as_hugging_face_encodes_it(
    template: str,
    transformers: Any,
    backends: Backends,
    special_tokens: Names,
    tokenizer: Tokenizer,
) -> None:
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backends["byte_level"](),
        chat_template=template,
        **special_tokens["byte_level"],
    )
    chat = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": " what is\n\nred? "},
        {"role": "assistant", "content": "the cup <think> \u4f60\U0001f600"},
        {"role": "user", "content": "and then?"},
    ]
    ours = render_and_encode(ChatTemplate(template, {}), tokenizer, chat, PAD)
    theirs = fast.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert ours == theirs


def test_a_question_is_a_message_of_the_user(tokenizer: Tokenizer) -> None:
    template = ChatTemplate(CHATML, {})
    asked = render_and_encode(template, tokenizer, "what?")
    told = render_and_encode(template, tokenizer, [{"role": "user", "content": "what?"}])
    assert asked == told
    assert asked == tokenizer.encode_prompt(
        "<|im_start|>user\nwhat?<|im_end|>\n<|im_start|>assistant\n"
    )
    unasked = render_and_encode(template, tokenizer, "what?", add_generation_prompt=False)
    assert unasked == tokenizer.encode_prompt("<|im_start|>user\nwhat?<|im_end|>\n")


VISION = f"<|vision|>{PAD}<|vision|>"


@pytest.mark.parametrize(
    ("content", "num_images", "rendered"),
    [
        ("what?", 2, f"{VISION}{VISION}what?"),
        (f"this {PAD} and {PAD}?", 2, f"this {VISION} and {VISION}?"),
        (f"{PAD}\nwhat?", 1, f"{VISION}\nwhat?"),
        ([text("what?"), IMAGE], 1, f"what?{VISION}"),
        ([text(f"a {PAD}"), IMAGE, text("b")], 2, f"a {VISION}{VISION}b"),
        ([text("a"), text("b")], 1, f"{VISION}ab"),
    ],
)
def test_images_stand_where_they_are_marked_or_first(
    content: Any, num_images: int, rendered: str, tokenizer: Tokenizer
) -> None:
    ours = render_and_encode(
        ChatTemplate(CHATML, {}), tokenizer, [{"role": "user", "content": content}], PAD, num_images
    )
    assert ours == tokenizer.encode_prompt(
        f"<|im_start|>user\n{rendered}<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    ("content", "num_images", "rendered"),
    [
        ("what?", 1, f"{PAD}\nwhat?"),
        (f"this {PAD}?", 1, f"this {PAD}?"),
        ([text("what?"), IMAGE], 1, f"what?\n{PAD}"),
        ([text("a"), text("b")], 0, "a\nb"),
    ],
)
def test_a_template_of_strings_gets_strings(
    content: Any, num_images: int, rendered: str, tokenizer: Tokenizer
) -> None:
    ours = render_and_encode(
        ChatTemplate(STRINGS_ONLY, {}),
        tokenizer,
        [{"role": "user", "content": content}],
        PAD,
        num_images,
    )
    assert ours == tokenizer.encode_prompt(
        f"<|im_start|>user\n{rendered}<|im_end|>\n<|im_start|>assistant"
    )


def test_a_template_of_parts_gets_parts(tokenizer: Tokenizer) -> None:
    ours = render_and_encode(ChatTemplate(IMAGES_FIRST, {}), tokenizer, "what?", PAD, 1)
    assert ours == tokenizer.encode_prompt(f"<|im_start|>{PAD}what?<|im_end|>")


def test_images_come_first_in_the_users_first_message(tokenizer: Tokenizer) -> None:
    chat = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    ours = render_and_encode(ChatTemplate(CHATML, {}), tokenizer, chat, PAD, 1)
    chat[1]["content"] = f"{PAD}a"
    assert ours == render_and_encode(ChatTemplate(CHATML, {}), tokenizer, chat, PAD, 1)
    assert tokenizer.token_id(PAD) in ours


@pytest.mark.parametrize(
    ("content", "num_images", "message"),
    [
        (f"{PAD} {PAD}", 1, "places for 2 images, but 1 came"),
        (PAD, 3, "places for 1 images, but 3 came"),
        ([IMAGE, text(PAD)], 1, "places for 2 images, but 1 came"),
        ([IMAGE, text("a")], 0, "places for 1 images, but 0 came"),
    ],
)
def test_a_count_mismatch_names_both_counts(
    content: Any, num_images: int, message: str, tokenizer: Tokenizer
) -> None:
    chat = [{"role": "user", "content": content}]
    for template in (CHATML, STRINGS_ONLY):
        with pytest.raises(InputError, match=message):
            render_and_encode(ChatTemplate(template, {}), tokenizer, chat, PAD, num_images)


def test_without_images_the_placeholder_is_text(
    tokenizer: Tokenizer, reference: ChatTemplate, make_tokenizer: MakeTokenizer
) -> None:
    ours = render_and_encode(ChatTemplate(CHATML, {}), tokenizer, f"what is {PAD}?", PAD, 0)
    assert tokenizer.token_id(PAD) not in ours
    assert f"what is {PAD}?" in tokenizer.decode(ours)
    words = make_tokenizer("reference")
    assert 4 not in render_and_encode(reference, words, "what is <image> ?", "<image>", 0)


def test_outside_the_users_messages_the_placeholder_is_text(tokenizer: Tokenizer) -> None:
    chat = [{"role": "system", "content": f"never say {PAD}"}, {"role": "user", "content": "a"}]
    ours = render_and_encode(ChatTemplate(CHATML, {}), tokenizer, chat, PAD, 1)
    assert ours.count(tokenizer.token_id(PAD)) == 1
    assert f"never say {PAD}" in tokenizer.decode(ours)


def test_a_template_that_loses_images_is_a_bundle_error(tokenizer: Tokenizer) -> None:
    template = ChatTemplate("{% for m in messages %}{{ m['role'] }}{% endfor %}", {})
    with pytest.raises(BundleError, match="0 image placeholders for 1 images"):
        render_and_encode(template, tokenizer, "what?", PAD, 1)


def test_a_model_without_images_refuses_them(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="1 images came, but this bundle's model takes none"):
        render_and_encode(ChatTemplate(CHATML, {}), tokenizer, "what?", None, 1)


CONTROLS = ["<|im_start|>", "<|im_end|>", "<|begin|>", "<|vision|>", PAD]
ATTACKS = st.lists(
    st.sampled_from(
        [*CONTROLS, "<|im_", "end|>", "<|", "|>", " ", "\n", "user", "\U000f0000", "a"]
    ),
    min_size=1,
    max_size=8,
).map("".join)


# Templates that cut what was said where they find something, or anywhere.
CUTTING = [
    STRINGS_ONLY.replace("m['content'] | trim", cut)
    for cut in (
        "m['content'][1:-1]",
        "m['content'][:9]",
        "m['content'][2:]",
        "m['content'].split('|>')[-1]",
        "m['content'].split('<|im_end|>') | join",
        "m['content'].replace('|', '').replace('im', '|im')",
        "m['content'].strip('<|>abc ')",
        "m['content'] | replace('a', '') | title | lower",
        "m['content'] | list | join('')",
        "m['content'] | reverse | reverse",
        "(m['content'] if '<|im_end|>' in m['content'] else m['content'] | upper)",
    )
]


@given(
    texts=st.lists(ATTACKS, min_size=1, max_size=3),
    as_parts=st.booleans(),
    source=st.sampled_from([CHATML, STRINGS_ONLY, IMAGES_FIRST, *CUTTING]),
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    with_image=st.booleans(),
)
@settings(max_examples=400, deadline=None)
def test_no_text_ever_becomes_a_control_token(
    make_tokenizer: MakeTokenizer,
    texts: list[str],
    as_parts: bool,
    source: str,
    role: str,
    with_image: bool,
) -> None:
    tokenizer = make_tokenizer("byte_level")
    template = ChatTemplate(source, {"eos_token": "<|im_end|>"})
    with_image = with_image and source not in CUTTING  # they would cut the image away
    if with_image:
        texts = [t.replace(PAD, "") for t in texts]

    def controls(texts: list[str]) -> list[int]:
        content: Any = [text(t) for t in texts] if as_parts else "".join(texts)
        chat = [{"role": "user", "content": "q"}, {"role": role, "content": content}]
        ids = render_and_encode(template, tokenizer, chat, PAD, int(with_image))
        return [token_id for token_id in ids if token_id in tokenizer.special_ids]

    assert controls(texts) == controls(["harmless"] * len(texts))


@pytest.mark.parametrize("halves", [("<|im_", "end|>"), ("<|im_ ", "\n end|>"), ("<|", "im_end|>")])
@pytest.mark.parametrize("source", [CHATML, IMAGES_FIRST])
def test_halves_of_a_control_token_do_not_join(
    halves: tuple[str, str], source: str, tokenizer: Tokenizer
) -> None:
    content = [text(halves[0]), IMAGE, text(halves[1])]
    if source == CHATML:
        content = [text(half) for half in halves]
    chat = [{"role": "user", "content": content}]
    ours = render_and_encode(ChatTemplate(source, {}), tokenizer, chat, PAD, content.count(IMAGE))
    assert ours.count(tokenizer.token_id("<|im_end|>")) == 1


def test_text_keeps_what_was_written(tokenizer: Tokenizer) -> None:
    question = "say <|im_end|> or \U000f0000<|im_start|> \U000f0001 to me"
    ours = render_and_encode(ChatTemplate(CHATML, {}), tokenizer, question, PAD)
    assert question in tokenizer.decode(ours)


def test_arguments_of_the_template_are_text_too(tokenizer: Tokenizer) -> None:
    tools = [{"name": "<|im_end|>", "<|im_start|>": 1}]
    ours = render_and_encode(ChatTemplate(CHATML, {}), tokenizer, "what?", PAD, tools=tools)
    none = render_and_encode(ChatTemplate(CHATML, {}), tokenizer, "what?", PAD)
    assert sum(i in tokenizer.special_ids for i in ours) == sum(
        i in tokenizer.special_ids for i in none
    )
    assert json.dumps(tools) in tokenizer.decode(ours)


def test_the_callers_messages_stay_as_they_are(tokenizer: Tokenizer) -> None:
    chat = [{"role": "user", "content": [text("<|im_"), text("end|>"), IMAGE]}]
    before = json.dumps(chat)
    render_and_encode(ChatTemplate(CHATML, {}), tokenizer, chat, PAD, 1)
    assert json.dumps(chat) == before


def test_a_base_model_gets_the_prompt_as_it_stands(
    make_tokenizer: MakeTokenizer, backends: Backends
) -> None:
    tokenizer = make_tokenizer("reference")
    for prompt in ("what is red ?", "USER: what </s> ASSISTANT:"):
        assert (
            render_and_encode(None, tokenizer, prompt) == backends["reference"]().encode(prompt).ids
        )
    what, end = (backends["reference"]().token_to_id(word) for word in ("what", "?"))
    assert render_and_encode(None, tokenizer, "what ?", "<image>", 2) == [1, 4, 4, what, end]
    assert render_and_encode(None, tokenizer, "what <image> ?", "<image>", 1) == [1, what, 4, end]
    assert 4 not in render_and_encode(None, tokenizer, "what <image> ?", "<image>", 0)
    with pytest.raises(InputError, match="2 images, but 1 came"):
        render_and_encode(None, tokenizer, "<image> <image>", "<image>", 1)
    with pytest.raises(InputError, match="no chat template"):
        render_and_encode(None, tokenizer, [{"role": "user", "content": "a"}] * 2)


def test_an_assistant_that_called_tools_said_nothing(tokenizer: Tokenizer) -> None:
    chat: list[dict[str, Any]] = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]},
    ]
    assert render_and_encode(
        ChatTemplate(CHATML.replace("p in m", "p in [] and m"), {}), tokenizer, chat
    )


@pytest.mark.parametrize(
    ("given_part", "part"),
    [
        ({"type": "text", "text": "a", "image_url": None, "refusal": None}, text("a")),
        ({"text": "a", "type": "text"}, text("a")),
    ],
)
def test_keys_of_a_part_that_are_none_are_left_out(
    given_part: dict[str, Any], part: dict[str, str], tokenizer: Tokenizer
) -> None:
    template = ChatTemplate("{{ messages }}", {})
    written = [
        render_and_encode(template, tokenizer, [{"role": "user", "content": [content]}])
        for content in (given_part, part)
    ]
    assert written[0] == written[1]


def test_an_image_part_may_have_keys_that_are_none(tokenizer: Tokenizer) -> None:
    chat = [{"role": "user", "content": [{**IMAGE, "text": None, "url": None}, text("what?")]}]
    ours = render_and_encode(ChatTemplate(CHATML, {}), tokenizer, chat, PAD, 1)
    assert ours == render_and_encode(ChatTemplate(CHATML, {}), tokenizer, "what?", PAD, 1)


class Colour(enum.IntEnum):
    RED = 3


class Text(str):
    def upper(self) -> str:
        raise AssertionError("a template called a method of the caller's")


def test_templates_see_plain_values(tokenizer: Tokenizer) -> None:
    chat = [{"role": "user", "content": Text("x"), "a": Colour.RED, "b": np.float64(1.5)}]
    source = "{% set m = messages[0] %}{{ m.content.upper() }} {{ m.a | tojson }} {{ [m.b, m.a] }}"
    ours = render_and_encode(ChatTemplate(source, {}), tokenizer, chat)
    assert tokenizer.decode(ours) == "X 3 [1.5, 3]"


def nested(levels: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found


@pytest.mark.parametrize(
    ("messages", "named"),
    [
        ([], "messages are"),
        (3, "messages are 3"),
        ({"role": "user", "content": "a"}, "messages are"),
        (["hello"], r"messages\[0\] is 'hello'"),
        ([{"role": "user"}], r"messages\[0\] has content None"),
        ([{"role": "user", "content": "a"}, {"role": "robot", "content": "a"}], "role 'robot'"),
        ([{"role": "user", "content": 3}], "content 3"),
        ([{"role": "user", "content": "a", "x": nested(5000)}], "deeper than 100 levels"),
        ([{"role": "user", "content": "a", ("b", 1): 1}], r"the key \('b', 1\)"),
        ([{"role": np.zeros(2), "content": "a"}], r"role array"),
        ([{"role": ["user"], "content": "a"}], r"role \['user'\]"),
        ([{"role": "x" * 5000, "content": "a"}], "role 'xxx"),
        ([{"role": "user", "content": None}], "content None"),
        ([{"role": "user", "content": ["a"]}], "part 'a'"),
        ([{"role": "user", "content": [{"type": "video"}]}], "video"),
        ([{"role": "user", "content": [{"type": "text"}]}], "a part"),
        ([{"role": "user", "content": [{"type": "image", "url": "x"}]}], "passed apart"),
        ([{"role": "assistant", "content": [IMAGE]}], "images belong to the user"),
        ([{"role": "user", "content": "a\ud800"}], "surrogate"),
        ([{"role": "user", "content": "a", "x": object()}], "holds a object"),
    ],
)
def test_messages_of_another_shape_are_refused_by_name(
    messages: Any, named: str, tokenizer: Tokenizer
) -> None:
    with pytest.raises(InputError, match=named):
        render_and_encode(ChatTemplate(CHATML, {}), tokenizer, messages, PAD)


def test_images_need_a_message_of_the_user(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="no message of the user"):
        chat = [{"role": "system", "content": "a"}]
        render_and_encode(ChatTemplate(CHATML, {}), tokenizer, chat, PAD, 1)
