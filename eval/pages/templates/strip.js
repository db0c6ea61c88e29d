// Each block's window: blocks to the right, slots upwards, a colour per kind of memory.
const Strip = {
  // Runs of slots of one kind: [{kind, faded, from, to}], slots [from, to).
  runs(trace, block) {
    const kinds = trace.kinds[block] || "", faded = trace.faded[block] || 0, found = [];
    for (let slot = 0; slot < kinds.length; slot += 1) {
      const last = found[found.length - 1];
      if (last && last.kind === kinds[slot] && last.faded === slot < faded) last.to = slot + 1;
      else found.push({ kind: kinds[slot], faded: slot < faded, from: slot, to: slot + 1 });
    }
    return found;
  },

  slots(trace) { return Math.max(1, ...trace.kinds.map((kinds) => kinds.length)); },

  draw(canvas, trace, kinds) {
    const scale = window.devicePixelRatio || 1;
    const width = Math.max(1, Math.round(canvas.clientWidth * scale)), height = Math.max(1, Math.round(canvas.clientHeight * scale));
    if (canvas.width !== width) canvas.width = width;
    if (canvas.height !== height) canvas.height = height;
    const pen = canvas.getContext("2d"), blocks = trace.kinds.length, slots = Strip.slots(trace);
    pen.clearRect(0, 0, width, height);
    for (let block = 0; block < blocks; block += 1) {
      const left = Math.round((block * width) / blocks), right = Math.round(((block + 1) * width) / blocks);
      for (const run of Strip.runs(trace, block)) {
        const top = Math.round(height - (run.to * height) / slots), bottom = Math.round(height - (run.from * height) / slots);
        pen.fillStyle = kinds[run.kind].colour;
        if (!run.faded) pen.fillRect(left, top, right - left, bottom - top);
        for (let y = top; run.faded && y < bottom; y += 1) {  // slanting lines: a memory that decays
          for (let x = left; x < right; x += 1) if ((x + y) % 4 < 2) pen.fillRect(x, y, 1, 1);
        }
      }
    }
  },

  // "f3 to f8, f11": frames or memories in slot order, runs of them joined.
  list(values) {
    const words = [];
    for (let first = 0; first < values.length;) {
      const [letter, number] = Strip.split(values[first]);
      let last = first, step = 0;
      while (number !== null && last + 1 < values.length) {
        const [other, next] = Strip.split(values[last + 1]), way = next === null ? 0 : next - Strip.split(values[last])[1];
        if (other !== letter || Math.abs(way) !== 1 || (step && way !== step)) break;
        step = way;
        last += 1;
      }
      words.push(last > first ? `${values[first]}\u2013${values[last]}` : `${values[first]}`);
      first = last + 1;
    }
    return words.join(", ").replace(/\bcmp(?:, cmp)*\b/g, (all) => `${all.split(", ").length} frames' worth`)
      .replace(/\bsrf(\d+)/g, (all, scene) => `${all} (scene ${Number(scene) + 1})`);
  },

  split(value) {
    if (typeof value === "number") return ["", value];
    const match = /^([a-z]*?)(\d+)$/.exec(value === null ? "" : value);
    return match ? [match[1], Number(match[2])] : [value, null];
  },

  // One line for each kind of a block: {kind, name, frames, positions}.
  lines(trace, block, kinds) {
    return Strip.runs(trace, block).map((run) => {
      const positions = trace.positions[block].slice(run.from, run.to);
      const own = positions.every((position) => position === null);
      const name = kinds[run.kind].name + (run.faded ? ", decaying" : "") + (trace.certain ? "" : " (guessed)");
      return { kind: run.kind, faded: run.faded, name, frames: Strip.list(trace.sources[block].slice(run.from, run.to)),
        positions: own ? "own positions" : Strip.list(positions) };
    });
  },
};
