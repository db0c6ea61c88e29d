// Lines over time as SVG: values from 0 to 100 with fitted axes, one value per block, and 95 % bands for lines that have one.
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

  // Points of one score against one cost, and the line through points that no other beats at less or equal cost.
  // points: [{name, words, colour, calibration, cost, score, half}]; less: whether less is better, for the cost and for the score.
  scatter(points, less, label, size = { ...Curves.size, left: 34, height: 190, right: 10 }) {
    const { width, height, left, right, top, bottom } = size;
    const svg = Curves.make("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
    const ends = (values) => { const low = Math.min(...values), high = Math.max(...values), room = (high - low || Math.abs(high) || 1) * 0.08; return [low - room, high + room]; };
    const [first, last] = ends(points.map((point) => point.cost));
    const [low, high] = ends(points.flatMap((point) => [point.score - (point.half || 0), point.score + (point.half || 0)]));
    const x = (cost) => left + ((width - left - right) * (cost - first)) / (last - first);
    const y = (score) => top + (height - top - bottom) * (1 - (score - low) / (high - low));
    const ticks = (from, to) => {
      const step = [1, 2, 5].flatMap((one) => [-2, -1, 0, 1, 2, 3].map((power) => one * 10 ** power)).sort((one, other) => one - other).find((one) => (to - from) / one <= 5) || to - from;
      return Array.from({ length: 7 }, (_, index) => (Math.ceil(from / step) + index) * step).filter((tick) => tick <= to).map((tick) => Number(tick.toPrecision(6)));
    };
    for (const tick of ticks(low, high)) {
      Curves.make("line", { class: "rule", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }, svg);
      Curves.make("text", { x: left - 4, y: y(tick) + 3.5, "text-anchor": "end" }, svg).textContent = tick;
    }
    for (const tick of ticks(first, last)) Curves.make("text", { x: x(tick), y: height - 5, "text-anchor": "middle" }, svg).textContent = tick;
    const best = (one, other) => (less.score ? one < other : one > other);
    const front = points.filter((point) => !point.calibration).sort((one, other) => (less.cost ? 1 : -1) * (one.cost - other.cost) || (less.score ? 1 : -1) * (one.score - other.score))
      .reduce((kept, point) => (kept.length && !best(point.score, kept.at(-1).score) ? kept : [...kept, point]), []);
    const corners = front.flatMap((point, index) => (index ? [[point.cost, front[index - 1].score], [point.cost, point.score]] : [[point.cost, point.score]]));
    Curves.make("polyline", { class: "front", points: corners.map(([cost, score]) => `${x(cost).toFixed(1)},${y(score).toFixed(1)}`).join(" ") }, svg);
    for (const point of points) {
      const style = `--c:${point.colour}`, at = x(point.cost), group = Curves.make("g", { class: point.calibration ? "point calibration" : "point", style, "data-line": point.name }, svg);
      Curves.make("title", {}, group).textContent = point.words;
      if (point.half) Curves.make("line", { x1: at, x2: at, y1: y(point.score - point.half), y2: y(point.score + point.half) }, group);
      Curves.make("circle", { cx: at, cy: y(point.score), r: 3.4 }, group);
    }
    svg.front = front.map((point) => point.name);
    return svg;
  },

  focus(charts, name) {
    for (const chart of charts) {
      chart.classList.toggle("focus", name !== null);
      for (const line of chart.querySelectorAll("[data-line]")) line.classList.toggle("on", line.dataset.line === name);
    }
  },
};
