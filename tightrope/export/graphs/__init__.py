"""From traces to the graph files of a bundle: `files` lists them, `write` writes them."""
