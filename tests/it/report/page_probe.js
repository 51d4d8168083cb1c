// Measures the page that it is part of, light or dark, wide or narrow, and leaves what it found at the outermost page.
addEventListener("load", () => {
  const all = (what) => [...document.querySelectorAll(what)];
  const rgb = (text) => text.match(/[\d.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = color.map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
  };
  const contrast = (a, b) => Math.max(light(a), light(b)) / Math.min(light(a), light(b));
  const behind = (node) => {
    const color = rgb(getComputedStyle(node).backgroundColor);
    return color.length == 3 ? color : behind(node.parentElement);
  };
  const says = (node) => [...node.childNodes].some((child) => child.nodeType == 3 && child.data.trim());
  const read = all("body *").filter((node) => says(node) && !node.closest("svg, script"));
  const series = ["--s1", "--s2", "--s3", "--s4", "--s5", "--s6", "--s7", "--s8", "--good", "--bad", "--heat"];
  const painted = (name) => {
    document.body.style.outlineColor = `var(${name})`;
    return rgb(getComputedStyle(document.body).outlineColor);
  };
  const stops = all("a[href], summary, [tabindex]").filter((node) => node.tabIndex >= 0);
  const skip = stops[0];
  const hidden = skip.getBoundingClientRect().bottom <= 0;
  skip.focus({ focusVisible: true });
  const shown = skip.getBoundingClientRect().top >= 0;
  const levels = all("h1, h2, h3, h4").map((heading) => Number(heading.tagName[1]));
  const root = document.documentElement;
  const found = {
    width: innerWidth,
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    overflow: root.scrollWidth - root.clientWidth,
    scrolling: all("[role=region]").filter((region) => region.scrollWidth > region.clientWidth).length,
    texts: read.length,
    text_contrast: Math.min(...read.map((node) => contrast(rgb(getComputedStyle(node).color), behind(node)))),
    series_contrast: Math.min(...series.map((name) => contrast(painted(name), behind(document.body)))),
    skip_first: hidden && shown && skip.hash == "#main" && stops.every((stop) => stop.tabIndex == 0),
    focus_ring: parseFloat(getComputedStyle(skip).outlineWidth),
    scripts: all("script").length,
    loaded: performance.getEntriesByType("resource").length,
    mute: all("svg:not([role=img][aria-label]), th:not([scope]), table:not(:has(> caption)), figure:not(:has(> figcaption))").length,
    h1: levels.filter((level) => level == 1).length,
    jumps: levels.filter((level, at) => level > (levels[at - 1] ?? 0) + 1).length,
  };
  top.document.documentElement.dataset.probe =
    Object.entries(found).map(([name, value]) => `${name}=${Number(value)}`).join(" ");
});
