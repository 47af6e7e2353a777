"use strict";
(async () => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const slider = document.getElementById("deadline");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const drawn = new Map();

  // Colours are named in the specifications: the theme puts them in.
  function themed(spec) {
    const theme = data.themes[dark.matches ? "dark" : "light"];
    return JSON.parse(JSON.stringify(spec).replace(/"@(\w+)"/g, (_, name) => JSON.stringify(theme[name])));
  }

  async function draw() {
    for (const [name, spec] of Object.entries(data.plots)) {
      drawn.get(name)?.finalize();
      const tooltip = { theme: dark.matches ? "dark" : "light" };
      // ast: expressions are interpreted, so that the page may forbid code from text.
      const options = { mode: "vega-lite", renderer: "svg", actions: false, ast: true, tooltip };
      drawn.set(name, await vegaEmbed(`#plot-${name}`, themed(spec), options));
    }
    choose();
  }

  function say(id, text) {
    document.getElementById(id).textContent = text;
  }

  // Looked up, not computed: the planner itself was asked when the report was made.
  function choose() {
    const plan = data.plans[Number(slider.value)];
    const ms = `${plan.deadline} ms`;
    slider.setAttribute("aria-valuetext", plan.point ? `${ms}, point ${plan.point}` : ms);
    say("deadline-ms", ms);
    say("choice-point", plan.point ? `${plan.point}: ${plan.name}` : "none: no point is in time");
    say("choice-quality", plan.quality);
    say("choice-time", plan.needed);
    say("choice-why", plan.why);
    for (const row of document.querySelectorAll("#table tr[aria-current]")) {
      row.removeAttribute("aria-current");
    }
    document.getElementById(`row-${plan.point}`)?.setAttribute("aria-current", "true");
    for (const name of data.movable) {
      const view = drawn.get(name)?.view;
      view?.signal("deadline", plan.deadline).signal("chosen", plan.point ?? 0).runAsync();
    }
  }

  slider.addEventListener("input", choose);
  dark.addEventListener("change", draw);
  await draw();
  document.documentElement.dataset.drawnMs = Math.round(performance.now());
})();
