"""The frontier as a page that people look at: one HTML file, and its plots as PNG and SVG."""
