// Lines over time as SVG: values within 0 and 100, axes where they are, a value a block, bands of 95 % where a line has one.
const Curves = {
  size: { width: 360, height: 150, left: 24, right: 4, top: 6, bottom: 18 },

  make(name, attributes, parent) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (parent) parent.append(node);
    return node;
  },

  // lines: [{name, colour, calibration, mean, half}]; borders: blocks at which scenes begin.
  chart(lines, blocks, borders, blockS, label, size = Curves.size) {
    const { width, height, left, right, top, bottom } = size;
    const svg = Curves.make("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
    const x = (block) => left + ((width - left - right) * block) / blocks;
    const values = lines.flatMap((line) => line.mean).filter((value) => value !== null);
    const low = Math.max(0, Math.floor(Math.min(90, ...values) / 10) * 10), high = Math.min(100, Math.max(low + 10, Math.ceil(Math.max(0, ...values) / 10) * 10));
    const y = (value) => top + (height - top - bottom) * (1 - (Math.max(low, Math.min(high, value)) - low) / (high - low));
    for (const value of [low, (low + high) / 2, high]) {
      Curves.make("line", { class: "rule", x1: left, x2: width - right, y1: y(value), y2: y(value) }, svg);
      Curves.make("text", { x: left - 4, y: y(value) + 3.5, "text-anchor": "end" }, svg).textContent = value;
    }
    for (const border of borders.slice(1)) Curves.make("line", { class: "scene", x1: x(border), x2: x(border), y1: top, y2: height - bottom }, svg);
    const seconds = blocks * blockS, step = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600].find((one) => seconds / one <= 6.5) || 1200;
    for (let second = 0; second <= seconds; second += step) {
      Curves.make("text", { x: x(second / blockS), y: height - 5, "text-anchor": !second ? "start" : x(second / blockS) > width - 12 ? "end" : "middle" }, svg).textContent = second ? second : "0 s";
    }
    for (const line of lines) {
      const there = line.mean.map((value, block) => [block, value]).filter(([, value]) => value !== null);
      const style = `--c:${line.colour}`, name = line.name;
      if (line.half) {
        const band = there.filter(([block]) => line.half[block] !== null);
        const up = band.map(([block, value]) => `${x(block + 0.5).toFixed(1)},${y(value + line.half[block]).toFixed(1)}`);
        const down = band.reverse().map(([block, value]) => `${x(block + 0.5).toFixed(1)},${y(value - line.half[block]).toFixed(1)}`);
        Curves.make("polygon", { class: "band", points: [...up, ...down].join(" "), style, "data-line": name }, svg);
      }
      const points = there.map(([block, value]) => `${x(block + 0.5).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
      Curves.make("polyline", { class: line.calibration ? "line calibration" : "line", points, style, "data-line": name }, svg);
    }
    const head = Curves.make("line", { class: "head", x1: left, x2: left, y1: top, y2: height - bottom }, svg);
    svg.place = (block) => { const at = x(Math.min(blocks, block)); head.setAttribute("x1", at); head.setAttribute("x2", at); };
    return svg;
  },

  focus(charts, name) {
    for (const chart of charts) {
      chart.classList.toggle("focus", name !== null);
      for (const line of chart.querySelectorAll("[data-line]")) line.classList.toggle("on", line.dataset.line === name);
    }
  },
};
