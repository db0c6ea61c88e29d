const report = (() => {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const { fps, reading_frames: BLOCK, reading_s: BLOCK_S } = DATA;  // of a reading; each video has the length of its own blocks
  const transport = new Transport(fps);
  const state = { task: DATA.parts.length ? DATA.parts[0].id : "", seed: "", prompt: "", methods: null, cell: null };
  const KEEP_MS = 400;          // browsers allow at most a hundred changes of the address in half a minute
  const live = new Set();       // visible figures whose videos are attached
  const rows = new Set();       // rows that are filled
  let charts = [], opened = null, inSight = false;

  // --- small helpers
  const make = (name, attributes = {}, ...children) => {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key === "text") node.textContent = value;
      else if (value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children);
    return node;
  };
  const metric = (name) => DATA.metrics[name] || { label: name.replace(/[._]/g, " "), unit: "", meaning: "", better: "higher" };
  const headed = (name) => metric(name).label + (metric(name).better === "lower" ? " \u2193" : "");
  const hint = (name) => [name, metric(name).meaning, metric(name).unit].filter(Boolean).join("; ");
  const colour = (plain) => `light-dark(${plain}, color-mix(in oklab, ${plain} 68%, white))`;
  const seconds = (frame) => (frame / fps).toFixed(2);
  const swatch = (kind, faded) => make("span", { class: faded ? "swatch faded" : "swatch", style: `--c:${DATA.kinds[kind].colour}` });

  // --- data beside the page: each file passes its value to report.take
  const asked = new Map(), coming = new Map();
  const take = (name, value) => coming.get(name)?.(value);
  const load = (name) => {
    if (!asked.has(name)) {
      asked.set(name, new Promise((resolve, reject) => {
        coming.set(name, resolve);
        const script = make("script", { src: `${encodeURI(name)}.js` });
        script.addEventListener("load", () => script.remove());
        script.addEventListener("error", () => reject(new Error(`${name}.js is not there`)));
        document.head.append(script);
      }));
    }
    return asked.get(name);
  };

  // --- the present view
  const shownParts = () => DATA.parts.filter((part) => state.task === "all" || part.id === state.task);
  const shownMethods = (part) => part.methods.map((method, index) => [method, index]).filter(([method]) => !state.methods || state.methods.has(method.id));
  const shownSeeds = (part) => part.seeds.map((seed, index) => [seed, index]).filter(([seed]) => state.seed === "all" || String(seed) === state.seed);
  const shownPrompts = (part) => {
    const words = state.prompt.toLowerCase().split(/\s+/).filter(Boolean);
    return part.prompts.map((prompt, index) => [prompt, index]).filter(([prompt]) => {
      const text = `${prompt.id} ${prompt.texts.join(" ")}`.toLowerCase();
      return words.every((word) => text.includes(word));
    });
  };
  const cellName = (part, method, prompt, seed) => `${method.id}/${prompt.id}/${seed}`;
  const fragment = (cell, frame, row) => {
    const words = [["task", state.task], ["seed", state.seed], ["prompt", state.prompt], ["method", state.methods ? [...state.methods].join(",") : ""], ["cell", cell], ["row", row], ["frame", frame]];
    const plain = (text) => encodeURIComponent(text).replace(/%2F/g, "/").replace(/%2C/g, ",");
    return `#${words.filter(([, value]) => value !== "" && value !== null && value !== undefined).map(([key, value]) => `${key}=${plain(String(value))}`).join("&")}`;
  };
  const rowName = (section) => `${section.task.id}/${section.prompt.id}/${section.seed}`;
  const rowInSight = () => {  // the first visible row, unless it is the first of all
    const sections = [...$("grid").querySelectorAll(".prompt")], first = sections.findIndex((one) => one.getBoundingClientRect().bottom > window.innerHeight / 4);
    return first > 0 ? rowName(sections[first]) : null;
  };
  let keeping = 0, kept = 0;
  const keep = () => {
    clearTimeout(keeping);
    keeping = 0;
    kept = transport.frame;
    history.replaceState(null, "", fragment(state.cell, kept || null, state.cell ? null : rowInSight()));
  };

  // --- a strip with its playhead, its tooltip and its keys
  const tip = $("tip");
  const hideTip = () => { tip.hidden = true; for (const at of document.querySelectorAll(".strip .at")) at.remove(); };
  const tipLines = (data, trace, block) => Strip.lines(trace, block, DATA.kinds).map((line) => make("tr", {},
    make("td", {}, swatch(line.kind, line.faded), line.name), make("td", { class: "mono", text: line.frames }), make("td", { text: line.positions === "own positions" ? line.positions : `at ${line.positions}` })));
  const blockWords = (data, trace, block) => {
    const size = data.block_frames, from = Math.max(0, block * size - data.lead);
    return `Block ${block}, ${seconds(from)}\u2013${seconds((block + 1) * size - data.lead)} s, scene ${trace.scenes[block] + 1}`;
  };
  const showTip = (strip, data, trace, block) => {
    hideTip();
    const head = make("b", { text: blockWords(data, trace, block) });
    const notes = trace.notes[block] ? [make("div", { text: trace.notes[block] })] : [];
    tip.replaceChildren(head, make("table", {}, make("tbody", {}, ...tipLines(data, trace, block))), ...notes);
    const box = strip.getBoundingClientRect(), width = box.width / data.blocks;
    strip.append(make("div", { class: "at", style: `left:${(100 * block) / data.blocks}%;width:${100 / data.blocks}%` }));
    tip.hidden = false;
    const left = Math.min(Math.max(6, box.left + (block + 0.5) * width - tip.offsetWidth / 2), window.innerWidth - tip.offsetWidth - 6);
    const above = box.top - tip.offsetHeight - 8;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 4 ? above : box.bottom + 8}px`;
  };
  const stripOf = (data, trace, label) => {
    const canvas = make("canvas"), head = make("div", { class: "head" });
    const strip = make("div", { class: "strip", tabindex: "0", role: "slider", "aria-label": `What ${label} kept, by block`, "aria-valuemin": "0", "aria-valuemax": data.blocks - 1, "aria-valuenow": "0" }, canvas, head);
    for (const border of data.borders.slice(1)) strip.append(make("div", { class: "border", style: `left:${(100 * border) / data.blocks}%` }));
    const choose = (block) => {
      strip.block = Math.max(0, Math.min(data.blocks - 1, block));
      strip.setAttribute("aria-valuenow", strip.block);
      const lines = Strip.lines(trace, strip.block, DATA.kinds).map((line) => `${line.name} ${line.frames} at ${line.positions}`);
      strip.setAttribute("aria-valuetext", `${blockWords(data, trace, strip.block)}: ${[...lines, trace.notes[strip.block]].filter(Boolean).join("; ")}`);
      showTip(strip, data, trace, strip.block);
    };
    const under = (event) => { const box = strip.getBoundingClientRect(); return Math.floor(((event.clientX - box.left) / box.width) * data.blocks); };
    const go = (block) => transport.seek(block * data.block_frames - data.lead);
    strip.addEventListener("pointermove", (event) => choose(under(event)));
    strip.addEventListener("pointerleave", () => { if (document.activeElement !== strip) hideTip(); });
    strip.addEventListener("click", (event) => go(under(event)));
    strip.addEventListener("focus", () => { if (strip.matches(":focus-visible")) choose(Math.floor((transport.frame + data.lead) / data.block_frames)); });
    strip.addEventListener("blur", hideTip);
    strip.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowDown: -1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -data.blocks, End: data.blocks };
      if (event.key in steps) choose((strip.block ?? 0) + steps[event.key]);
      else if (event.key === "Enter") go(strip.block ?? 0);
      else if (event.key === "Escape") hideTip();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    strip.place = (frame) => { head.style.left = `${(100 * (Math.min(frame, data.frames - 1) + data.lead + 0.5)) / (data.blocks * data.block_frames)}%`; };
    strip.draw = () => Strip.draw(canvas, trace, DATA.kinds);
    strip.place(transport.frame);
    return strip;
  };
  const noStrip = () => make("div", { class: "strip none", text: "no memory" });

  // --- a cell of the grid
  const videoOf = (data, label) => make("video", { muted: true, playsinline: true, preload: "auto", tabindex: "-1", "aria-label": label });
  const screenOf = (method) => make("div", { class: method.size[1] <= 160 ? "screen small-frames" : "screen", style: `--ratio:${method.size[0]} / ${method.size[1]}` });
  const figureOf = (row, method, index) => {
    const entry = row.task.cells[index][row.promptIndex][row.seedIndex];
    const screen = screenOf(method), name = typeof entry === "string" ? entry : entry && entry.data;
    const button = make("button", { type: "button", class: "open", "aria-expanded": "false" }, method.label);
    if (method.more) button.append(make("span", { class: "more", text: ` ${method.more}` }));
    const figure = make("figure", { class: "cell", "data-method": method.id, "data-cell": cellName(row.task, method, row.prompt, row.seed) }, screen, make("figcaption", {}, button));
    Object.assign(figure, { row, method, screen, entry, name, button, visible: false });
    if (!name) {
      const words = entry ? entry.status : "not asked for";
      screen.append(make("div", { class: "none" }, make("span", { class: entry && entry.status === "failed" ? "bad" : "", text: words }), make("span", { text: (entry && entry.note.slice(0, 90)) || "" })));
      button.disabled = true;
      return figure;
    }
    if (entry.status) figure.append(make("div", { class: "small bad", text: entry.status }));
    button.addEventListener("click", () => (state.cell === figure.dataset.cell ? close() : open(figure)));
    screen.addEventListener("click", () => button.click());
    sight.observe(figure);
    return figure;
  };
  const attach = async (figure) => {
    figure.visible = true;
    let data;
    try { data = await load(figure.name); } catch (error) {
      figure.screen.replaceChildren(make("div", { class: "none bad", text: error.message }));
      return;
    }
    if (!figure.visible || figure.video) return;
    figure.data = data;
    figure.video = videoOf(data, `${figure.method.label}, ${figure.row.prompt.id}`);
    figure.video.muted = true;
    figure.video.addEventListener("error", () => { if (figure.video) figure.screen.replaceChildren(make("div", { class: "none bad", text: "this video cannot be played" })); });
    figure.video.src = data.video;
    figure.screen.replaceChildren(figure.video);
    transport.join(figure.video, data.frames);
    live.add(figure);
    if (figure.strip) { figure.strip.place?.(transport.frame); return; }
    const trace = data.trace ? await load(data.trace).catch(() => null) : null;
    if (figure.strip) return;
    figure.strip = trace ? stripOf(data, trace, figure.method.label) : noStrip();
    figure.screen.after(figure.strip);
    figure.strip.draw?.();
  };
  const detach = (figure) => {
    figure.visible = false;
    live.delete(figure);
    if (!figure.video) return;
    const video = figure.video;
    figure.video = null;
    transport.leave(video);
    video.removeAttribute("src");
    video.load();
    video.remove();
  };
  const sight = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) attach(entry.target); else detach(entry.target);
  }, { rootMargin: "120px 0px" });

  // --- a row: a prompt and a seed, filled shortly before it becomes visible
  const rowOf = (part, prompt, promptIndex, seed, seedIndex) => {
    const section = make("section", { class: "prompt", "aria-label": `Prompt ${prompt.id}, seed ${seed}`, "data-prompt": prompt.id, "data-seed": seed });
    section.classList.add("ahead");
    Object.assign(section, { task: part, prompt, promptIndex, seed, seedIndex });  // an element's own `part` is something else
    near.observe(section);
    return section;
  };
  const fill = (section) => {
    if (section.filled) return;
    section.filled = true;
    const { task: part, prompt, seed } = section;
    section.said = make("p", { class: "said" });
    const line = make("div", { class: "line" }, section.said);
    section.append(line);
    if (prompt.texts.length > 1) {
      const scenes = prompt.texts.map((text, index) => make("li", {}, `${text} `, make("span", { text: index < prompt.borders.length ? `${prompt.how[index] || "first"}, from ${(prompt.borders[index] * BLOCK_S).toFixed(1)} s` : prompt.how[index] })));
      const list = make("ol", { class: "scenes", hidden: true }, ...scenes), more = make("button", { type: "button", class: "quiet small", "aria-expanded": "false", text: `${prompt.texts.length} scenes` });
      more.addEventListener("click", () => { list.hidden = !list.hidden; more.setAttribute("aria-expanded", String(!list.hidden)); });
      line.append(more);
      section.append(list);
    }
    const methods = shownMethods(part), cells = make("div", { class: "cells", style: `--n:${Math.max(1, methods.length)}` });
    section.append(cells);
    cells.append(...methods.map(([method, index]) => figureOf(section, method, index)));
    section.classList.remove("ahead");
    rows.add(section);
    section.title_ = make("h3", { text: prompt.id });
    section.seedWords = make("span", { class: "muted", text: part.seeds.length > 1 ? ` seed ${seed}, ` : " " });
    tellScene(section, transport.frame, true);
    $("grid").style.setProperty("--row", `${section.offsetHeight}px`);  // so that unfilled rows have about their later height
  };
  const tellScene = (section, frame, force) => {
    const { prompt } = section, block = frame / BLOCK;
    let scene = 0;
    while (scene + 1 < prompt.borders.length && prompt.borders[scene + 1] <= block) scene += 1;
    if (!force && scene === section.scene) return;
    section.scene = scene;
    const many = prompt.borders.length > 1, how = prompt.how[scene] ? `, ${prompt.how[scene]}` : "";
    const words = many ? `scene ${scene + 1} of ${prompt.borders.length}${how}: ` : "";
    section.said.replaceChildren(section.title_, section.seedWords, make("span", { class: "muted", text: words }), make("span", { class: "now", text: prompt.texts[scene] || "(no text: the prompt set has changed or is gone)" }));
  };
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) { near.unobserve(entry.target); fill(entry.target); }
  }, { rootMargin: "700px 0px" });

  // --- an open cell: large, with scores of its scenes, its drift and its provenance
  const drop = (video) => {
    transport.leave(video);
    video.removeAttribute("src");
    video.load();
    video.remove();
  };
  // A wipe: the right part of the picture shows another method, from a line that a slider moves.
  const wipeOf = (row, method, screen, stage) => {
    const others = [...row.querySelectorAll(".cell")].filter((figure) => figure.name && figure.method !== method);
    const choice = make("select", {}, make("option", { value: "", text: "nothing" }), ...others.map((figure, index) => make("option", { value: index, text: figure.method.label + (figure.method.more ? `, ${figure.method.more}` : "") })));
    const slider = make("input", { type: "range", min: "0", max: "100", value: "50", "aria-label": "Where the other picture begins", hidden: true });
    slider.addEventListener("input", () => stage.style.setProperty("--wipe", `${slider.value}%`));
    choice.addEventListener("change", async () => {
      const own = opened, figure = others[choice.value], data = figure ? await load(figure.name) : null;
      if (!own || own !== opened) return;
      if (own.over) drop(own.over);
      own.over = null;
      slider.hidden = !figure;
      stage.classList.toggle("wiped", Boolean(figure));
      if (!figure) return;
      own.over = videoOf(data, `${figure.method.label}, from the line on`);
      own.over.muted = true;
      own.over.className = "over";
      own.over.src = data.video;
      screen.append(own.over);
      transport.join(own.over, data.frames);
    });
    return others.length ? [make("label", {}, "Wipe to ", choice), slider] : [];
  };
  // A recalled scene's first showing beside it, in step.
  const insetOf = (data, prompt, screen) => {
    if (!Object.keys(prompt.first).length) return null;
    const video = videoOf(data, "first showing"), words = make("figcaption"), box = make("figure", { class: "inset", hidden: true }, make("div", { class: "screen", style: screen.getAttribute("style") }, video), words);
    video.muted = true;
    video.src = data.video;
    screen.append(box);
    return { video, box, words, prompt };
  };
  const tellInset = ({ video, box, words, prompt }, frame) => {
    const scene = prompt.borders.findLastIndex((border) => border * BLOCK <= frame), first = prompt.first[scene];
    box.hidden = first === undefined;
    if (box.hidden || video.readyState === 0 || video.seeking) return;
    words.textContent = `scene ${first + 1}, its first showing`;
    const last = prompt.borders[first + 1] * BLOCK - 1, at = Math.min(last, Math.floor(prompt.borders[first] * BLOCK) + frame - Math.ceil(prompt.borders[scene] * BLOCK));
    if (Math.abs(video.currentTime - (at + 0.5) / fps) > 1e-3) video.currentTime = (at + 0.5) / fps;
  };
  const close = () => {
    if (!opened) return;
    for (const video of [opened.video, opened.over, opened.inset?.video]) if (video) drop(video);
    opened.panel.remove();
    opened.figure.button.setAttribute("aria-expanded", "false");
    const { button } = opened.figure;
    opened = null;
    state.cell = null;
    keep();
    button.focus({ preventScroll: true });
  };
  const segmentsOf = (data, prompt) => {
    const names = [...new Set(data.per_segment.flatMap((segment) => Object.keys(segment)))].filter((name) => name !== "start" && name !== "end");
    const head = make("tr", {}, make("th", { text: "Scene" }), make("th", { class: "n", text: "Seconds" }), ...names.map((name) => make("th", { class: "n", title: hint(name), text: headed(name) })));
    const body = data.per_segment.map((segment, index) => make("tr", { title: prompt.texts[index] || "" }, make("th", { text: String(index + 1) }),
      make("td", { class: "n", text: `${(segment.start / fps).toFixed(1)}\u2013${(segment.end / fps).toFixed(1)}` }),
      ...names.map((name) => make("td", { class: "n", text: typeof segment[name] === "number" ? segment[name].toFixed(2) : "-" }))));
    return make("div", { class: "wide scroll segments", tabindex: "0", role: "region", "aria-label": "Scores by scene" }, make("h5", { text: "Scores by scene" }), make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
  };
  const factsOf = (data) => {
    const list = (words, pairs) => make("div", {}, make("h5", { text: words }), make("dl", {}, ...pairs.flatMap(([name, value, title]) => [make("dt", { text: name, title: title || "" }), make("dd", {}, value)])));
    const scores = Object.entries(data.metrics).map(([name, value]) => [headed(name), value === null ? "-" : value.toFixed(2), hint(name)]);
    const told = ["attempt", "host", "device", "fps", "block_ms", "generate_s", "latents_sha256"].filter((name) => data.facts[name] !== undefined);
    const from = [["run", make("a", { href: `#run-${data.run}`, class: "mono", text: data.run })], ...told.map((name) => [name.replace(/_/g, " "), make("span", { class: "mono", text: String(data.facts[name]) })])];
    return make("div", { class: "wide facts" }, ...(scores.length ? [list("Scores of the video", scores)] : []), list("Where it comes from", from));
  };
  const driftOf = (data) => {
    const names = Object.keys(data.drift), box = make("div", { class: "wide curves" }), scale = data.block_frames / BLOCK;
    opened.charts = names.map((name) => {
      const line = { name: "video", colour: colour(DATA.series[0]), mean: data.drift[name], half: null };
      const chart = Curves.chart([line], Math.max(data.blocks * scale, data.drift[name].length), data.borders.map((border) => border * scale), BLOCK_S, `${name} of this video by block`, { ...Curves.size, height: 110 });
      box.append(make("figure", {}, make("p", { class: "title", text: `${name.replace(/_/g, " ")}, by block` }), chart));
      return chart;
    });
    return names.length ? [box] : [];
  };
  const open = async (figure, show) => {
    if (opened) close();
    const data = await load(figure.name), { row, method } = figure;
    const trace = data.trace ? await load(data.trace).catch(() => null) : null;
    if (opened) close();
    const closing = make("button", { type: "button", class: "end", text: "Close" });
    const link = make("a", { class: "permalink small", text: "Link to this cell" });
    const video = videoOf(data, `${method.label}, large`), screen = screenOf(method);
    const strip = trace ? stripOf(data, trace, method.label) : noStrip();
    const now = make("div", { class: "now small" });
    const length = seconds(data.frames);
    const right = make("div", {}, make("h5", { text: "Kept, block by block" }), strip, ...(trace ? [make("div", { class: "axis" }, make("span", { text: "0 s" }), make("span", { text: `${length} s, ${data.blocks} blocks` })), now] : []));
    const status = typeof figure.entry === "object" ? [make("span", { class: "bad", text: `${figure.entry.status} ${figure.entry.note}` })] : [];
    const stage = make("div", { class: "stage" }), full = make("button", { type: "button", text: "Full screen" });
    full.addEventListener("click", () => screen.requestFullscreen?.().catch(() => {}));
    stage.append(screen, make("div", { class: "tools" }, full, ...wipeOf(row, method, screen, stage)));
    const inset = insetOf(data, row.prompt, screen);
    opened = { figure, data, trace, video, strip, now, link, inset, over: null, charts: [] };
    const head = make("header", {}, make("h4", { text: `${method.label}${method.more ? `, ${method.more}` : ""}` }), make("span", { class: "muted", text: `${row.prompt.id}, seed ${row.seed}` }), ...status, link, closing);
    const panel = make("div", { class: "detail", role: "region", "aria-label": `${method.label}, ${row.prompt.id}, seed ${row.seed}`, tabindex: "-1" }, head, stage, right);
    if (data.per_segment.length) panel.append(segmentsOf(data, row.prompt));
    panel.append(...driftOf(data), factsOf(data));
    opened.panel = panel;
    video.muted = true;
    video.src = data.video;
    screen.prepend(video);
    row.append(panel);
    strip.draw?.();
    transport.join(video, data.frames);
    figure.button.setAttribute("aria-expanded", "true");
    closing.addEventListener("click", close);
    state.cell = figure.dataset.cell;
    keep();
    tellOpened(transport.frame);
    panel.focus({ preventScroll: true });
    if (show) row.scrollIntoView({ block: "start", behavior: "instant" });
  };
  const tellOpened = (frame) => {
    if (!opened) return;
    const { data, trace, strip, now, link, charts: own } = opened;
    const block = Math.min(data.blocks - 1, Math.floor((Math.min(frame, data.frames - 1) + data.lead) / data.block_frames));
    strip.place?.(frame);
    if (opened.inset) tellInset(opened.inset, frame);
    for (const chart of own) chart.place((frame + data.lead) / BLOCK);
    if (!transport.running) link.setAttribute("href", fragment(state.cell, frame));
    if (!trace || opened.block === block) return;
    opened.block = block;
    now.replaceChildren(make("b", { text: blockWords(data, trace, block) }), make("table", {}, make("tbody", {}, ...tipLines(data, trace, block))));
  };

  // --- names of methods beside their colours: pointing at one highlights it in all charts
  const huesOf = (part) => part.methods.map((method) => method.calibration ? "var(--muted)" : colour(DATA.series[part.methods.filter((other) => !other.calibration).indexOf(method) % DATA.series.length]));
  const named = (method) => method.label + (method.more ? ` (${method.more})` : "");
  const legend = (part, hues, indices, shown) => make("div", { class: "lines" }, ...indices.map((index) => {
    const button = make("button", { type: "button" }, make("span", { class: "swatch", style: `--c:${hues[index]}` }), named(part.methods[index]));
    for (const event of ["pointerenter", "focus"]) button.addEventListener(event, () => Curves.focus(shown, part.methods[index].id));
    for (const event of ["pointerleave", "blur"]) button.addEventListener(event, () => Curves.focus(shown, null));
    return button;
  }));

  // --- the chosen score against frames attended, MB kept and FPS
  const drawCosts = (part, told, name) => {
    const hues = huesOf(part), shown = shownMethods(part).map(([, index]) => index).filter((index) => told.means[name][index]), drawn = [];
    const figures = Object.entries(DATA.costs).flatMap(([cost, about]) => {
      const points = shown.filter((index) => told.costs[cost][index] !== null).map((index) => {
        const [score, half] = told.means[name][index], spent = told.costs[cost][index], method = part.methods[index];
        const words = `${named(method)}: ${score.toFixed(2)}${half === null ? "" : ` \u00b1 ${half.toFixed(2)}`}; ${about.label} ${Number(spent.toFixed(2))}`;
        return { name: method.id, words, colour: hues[index], calibration: method.calibration, cost: spent, score, half };
      });
      if (!points.length) return [];
      drawn.push(Curves.scatter(points, { cost: about.lower, score: metric(name).better === "lower" }, `${headed(name)} against ${about.label}, ${part.title}`));
      return [make("figure", {}, make("p", { class: "title", text: about.label }), drawn.at(-1))];
    });
    $("cost").hidden = !figures.length;
    $("cost-words").textContent = `${part.title}. ${headed(name)}, the score chosen above, with its 95 % interval; a line joins methods that no other beats at less or equal cost.`;
    $("costs").replaceChildren(legend(part, hues, shown, drawn), ...figures);
  };

  // --- drift of the chosen task
  const drawDrift = async () => {
    const part = shownParts()[0], box = $("curves");
    if (!part) return;
    const lines = await load(`drift/${part.id}`).catch(() => []);
    if (part !== shownParts()[0]) return;
    const shown = new Set(shownMethods(part).map(([, index]) => index)), kept = lines.filter((line) => shown.has(line.method));
    charts = [];
    box.replaceChildren();
    if (!kept.length) { $("drift-words").textContent = `${part.title}: no scores by block. The embedded scorer writes them.`; return; }
    const borders = part.prompts.every((prompt) => String(prompt.borders) === String(part.prompts[0].borders)) ? part.prompts[0].borders : [0];
    const hues = huesOf(part);
    $("drift-words").textContent = `${part.title}. Moving mean over ${DATA.window * BLOCK_S} s, mean over videos; point at a name for its 95 % band over prompts. Dashed: rendered rows.`;
    box.append(legend(part, hues, kept.map((line) => line.method), charts));
    for (const [name, words] of Object.entries(DATA.measures)) {
      const drawn = kept.filter((line) => line.curves[name]).map((line) => ({ name: part.methods[line.method].id, colour: hues[line.method], calibration: part.methods[line.method].calibration, ...line.curves[name] }));
      if (!drawn.length) continue;
      const chart = Curves.chart(drawn, Math.max(...drawn.map((line) => line.mean.length)), borders, BLOCK_S, `${words}, ${part.title}`);
      charts.push(chart);
      box.append(make("figure", {}, make("p", { class: "title", text: words }), chart));
    }
    for (const chart of charts) chart.place(transport.frame / BLOCK);
  };

  // --- scores of the chosen task by prompt
  const tellScores = async () => {
    const part = shownParts()[0], table = $("by-prompt");
    if (!part) return;
    const told = await load(`scores/${part.id}`).catch(() => ({ metrics: {}, means: {}, costs: {} })), names = Object.keys(told.metrics);
    if (part !== shownParts()[0]) return;
    $("prompts").hidden = $("cost").hidden = !names.length;
    if (!names.length) return;
    const methods = shownMethods(part), seeds = shownSeeds(part), words = ([method]) => named(method);
    if (!names.includes($("score").value)) options($("score"), names.map((name) => [name, headed(name)]), names[0]);
    const before = $("against").value;
    options($("against"), [["", "nothing"], ...methods.map((pair) => [pair[0].id, words(pair)])], methods.some(([method]) => method.id === before) ? before : "");
    const name = $("score").value, rows = told.metrics[name], reference = methods.find(([method]) => method.id === $("against").value), lower = metric(name).better === "lower";
    const mean = (index, prompt) => {  // over seeds; a difference needs both values
      const values = seeds.map(([, seed]) => { const one = rows[index][prompt][seed], base = reference ? rows[reference[1]][prompt][seed] : 0; return one === null || base === null ? null : one - base; }).filter((value) => value !== null);
      return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
    };
    const head = (text, number) => {
      const button = make("button", { type: "button", class: "sort", "data-lower": number && lower, text });
      button.addEventListener("click", () => sortBy(button));
      return make("th", { scope: "col", class: number && "n" }, button);
    };
    const line = ([prompt, index]) => {
      const button = make("button", { type: "button", class: "open mono", text: prompt.id, title: prompt.texts.join(" / ") });
      button.addEventListener("click", () => { state.prompt = prompt.id; showFilters(); show(); $("videos").scrollIntoView({ behavior: "instant" }); });
      return make("tr", {}, make("th", { scope: "row" }, button), ...methods.map(([, method]) => { const value = mean(method, index); return make("td", { class: "n", text: value === null ? "-" : `${reference && value > 0 ? "+" : ""}${value.toFixed(2)}` }); }));
    };
    drawCosts(part, told, name);
    $("prompts-words").textContent = `${part.title}; ${seeds.length > 1 ? `means over ${seeds.length} seeds` : `seed ${seeds[0]?.[0]}`}. Click a column's head to sort, and a prompt to open its videos.`;
    table.tHead.replaceChildren(make("tr", {}, head("Prompt", false), ...methods.map((pair) => head(words(pair), true))));
    table.tBodies[0].replaceChildren(...shownPrompts(part).map(line));
    tellWidth();
  };
  const tellWidth = () => { for (const box of document.querySelectorAll(".scroll")) box.classList.toggle("more", box.scrollWidth - box.clientWidth - box.scrollLeft > 2); };

  // --- filters
  const options = (select, pairs, value) => {
    select.replaceChildren(...pairs.map(([key, words]) => make("option", { value: key, text: words })));
    select.value = value;
  };
  const showFilters = () => {
    const tasks = DATA.parts.map((part) => [part.id, part.title]);
    options($("task"), tasks.length > 1 ? [...tasks, ["all", "All tasks"]] : tasks, state.task);
    const seeds = [...new Set(shownParts().flatMap((part) => part.seeds))].sort((one, other) => one - other).map(String);
    if (!seeds.includes(state.seed) && state.seed !== "all") state.seed = seeds[0] ?? "";
    options($("seed"), seeds.length > 1 ? [...seeds.map((seed) => [seed, seed]), ["all", "all seeds"]] : seeds.map((seed) => [seed, seed]), state.seed);
    $("prompt").value = state.prompt;
    $("prompt-ids").replaceChildren(...[...new Set(shownParts().flatMap((part) => part.prompts.map((prompt) => prompt.id)))].map((id) => make("option", { value: id })));
    const methods = new Map(shownParts().flatMap((part) => part.methods.map((method) => [method.id, method])));
    for (const chip of $("methods").querySelectorAll(".chip")) chip.remove();
    for (const method of methods.values()) {
      const chip = make("button", { type: "button", class: "chip", "data-method": method.id, title: method.id, "aria-pressed": String(!state.methods || state.methods.has(method.id)), text: method.label + (method.more ? ` (${method.more})` : "") });
      chip.addEventListener("click", () => {
        const there = [...methods.keys()], on = new Set(state.methods ? there.filter((id) => state.methods.has(id)) : there);
        if (on.has(method.id)) on.delete(method.id); else on.add(method.id);
        state.methods = on.size === there.length ? null : on;
        chip.setAttribute("aria-pressed", String(on.has(method.id)));
        show();
      });
      $("methods").append(chip);
    }
  };
  const show = () => {
    const place = location.hash.includes("=") ? null : location.hash;
    state.cell = opened ? (close(), null) : null;
    hideTip();
    for (const figure of [...live]) detach(figure);
    sight.disconnect();
    near.disconnect();
    rows.clear();
    const sections = [];
    let videos = 0;
    for (const part of shownParts()) {
      const prompts = shownPrompts(part), methods = shownMethods(part), seeds = shownSeeds(part);
      if (state.task === "all" && prompts.length) sections.push(make("h3", { text: part.title }));
      for (const [prompt, promptIndex] of prompts) for (const [seed, seedIndex] of seeds) {
        sections.push(rowOf(part, prompt, promptIndex, seed, seedIndex));
        for (const [, index] of methods) { const entry = part.cells[index][promptIndex][seedIndex]; if (typeof entry === "string" || (entry && entry.data)) videos += 1; }
      }
    }
    $("grid").replaceChildren(...sections);
    $("count").textContent = `${videos} ${videos === 1 ? "video" : "videos"} shown of ${DATA.parts.reduce((sum, part) => sum + part.cells.flat(2).filter((entry) => typeof entry === "string" || (entry && entry.data)).length, 0)}`;
    const parts = shownParts(), cut = parts.flatMap((part) => part.prompts).filter((prompt) => prompt.borders.length > 1), same = cut.map((prompt) => String(prompt.borders));
    transport.resize(Math.max(1, ...parts.map((part) => part.frames)));
    $("seek").max = transport.frames - 1;
    const borders = same.length && same.every((text) => text === same[0]) ? cut[0].borders.slice(1) : [];
    $("ticks").replaceChildren(...borders.map((border) => make("i", { style: `left:${(100 * border * BLOCK) / transport.frames}%` })));
    $("scenes").replaceChildren(...(borders.length ? [0, ...borders] : []).map((border, scene) => {
      const button = make("button", { type: "button", title: `To scene ${scene + 1}`, "aria-label": `Scene ${scene + 1}`, text: String(scene + 1) });
      button.from = Math.ceil(border * BLOCK);
      button.addEventListener("click", () => transport.seek(button.from));
      return button;
    }));
    if (!place) keep();
    drawDrift();
    tellScores();
  };

  // --- links: the fragment holds the filters, the open cell and the frame
  const refuse = [];
  const apply = async () => {
    const words = new URLSearchParams(location.hash.slice(1).replace(/\+/g, "%2B"));
    if (location.hash && !location.hash.includes("=")) {  // a place on the page
      clearTimeout(keeping);  // it stays in the address until the view changes
      keeping = 0;
      kept = transport.frame;
      const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
      if (!$("grid").children.length) { showFilters(); show(); }
      for (let box = target && target.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
      target?.scrollIntoView();
      return;
    }
    refuse.length = 0;
    const task = words.get("task");
    if (task && task !== "all" && !DATA.parts.some((part) => part.id === task)) refuse.push(`task ${task}`);
    else if (task) state.task = task;
    state.seed = words.get("seed") ?? state.seed;
    state.prompt = words.get("prompt") ?? "";
    const known = new Set(shownParts().flatMap((part) => part.methods.map((method) => method.id)));
    const methods = (words.get("method") || "").split(",").filter(Boolean);
    refuse.push(...methods.filter((id) => !known.has(id)).map((id) => `method ${id}`));
    state.methods = methods.some((id) => known.has(id)) ? new Set(methods.filter((id) => known.has(id))) : null;
    const cell = words.get("cell"), place = cell && find(cell);
    if (cell && !place) refuse.push(`cell ${cell}`);
    if (place) {
      state.seed = state.seed === "all" ? "all" : String(place.seed);
      if (state.methods && !state.methods.has(place.method.id)) state.methods.add(place.method.id);
      if (!shownPrompts(place.part).some(([prompt]) => prompt === place.prompt)) state.prompt = "";
    }
    showFilters();
    show();
    if (refuse.length) $("count").textContent += `. The link names parts that this report lacks: ${refuse.join(", ")}`;
    if (place) {
      const row = [...$("grid").querySelectorAll(".prompt")].find((one) => one.task === place.part && one.prompt === place.prompt && String(one.seed) === String(place.seed));
      near.unobserve(row);
      fill(row);
      const figure = [...row.querySelectorAll(".cell")].find((one) => one.dataset.cell === cell);
      if (figure.name) await open(figure, true); else row.scrollIntoView({ block: "start" });
    }
    const row = !place && words.get("row") && [...$("grid").querySelectorAll(".prompt")].find((one) => rowName(one) === words.get("row"));
    if (row) {
      near.unobserve(row);
      fill(row);
      row.scrollIntoView({ block: "start", behavior: "instant" });
    }
    if (words.get("frame") !== null && /^\d+$/.test(words.get("frame"))) transport.seek(Number(words.get("frame")));
  };
  const find = (cell) => {
    for (const part of shownParts()) for (const method of part.methods) for (const prompt of part.prompts) for (const seed of part.seeds) {
      if (cellName(part, method, prompt, seed) === cell) return { part, method, prompt, seed };
    }
    return null;
  };

  // --- tables: a click on a head sorts each section's rows, best first, then worst first, then in the original order; a row opens its videos
  const sortBy = (button) => {
    const head = button.closest("th"), table = head.closest("table"), now = head.getAttribute("aria-sort");
    const rising = button.matches("[data-lower]") || !head.matches(".n") ? "ascending" : "descending", other = rising === "ascending" ? "descending" : "ascending";
    const next = now === null ? rising : now === rising ? other : null;
    for (const one of table.querySelectorAll("[aria-sort]")) one.removeAttribute("aria-sort");
    if (next) head.setAttribute("aria-sort", next);
    const value = (row) => {
      const text = row.cells[head.cellIndex].textContent.trim(), number = Number.parseFloat(text);
      return head.matches(".n") ? number : text;
    };
    for (const body of table.tBodies) {
      const lines = [...body.rows].filter((row) => !row.matches(".section"));
      lines.forEach((row, place) => { row.came ??= place; });
      const known = (row) => value(row) === value(row);  // a dash has no value and stays at the end
      const order = (one, two) => (known(two) - known(one)) || (value(one) < value(two) ? -1 : value(one) > value(two) ? 1 : 0) * (next === "ascending" ? 1 : -1);
      body.append(...lines.sort((one, two) => (next && order(one, two)) || one.came - two.came));
    }
  };

  // --- wiring
  for (const button of document.querySelectorAll(".sort")) button.addEventListener("click", () => sortBy(button));
  for (const link of document.querySelectorAll("a.videos")) link.addEventListener("click", () => $("videos").scrollIntoView({ behavior: "instant" }));
  transport.listen((frame) => {
    for (const figure of live) figure.strip?.place?.(frame);
    for (const row of rows) if (row.isConnected) tellScene(row, frame);
    for (const chart of charts) chart.place(frame / BLOCK);
    tellOpened(frame);
    const begun = [...$("scenes").children].filter((button) => button.from <= frame);
    for (const button of $("scenes").children) button.toggleAttribute("aria-current", button === begun.at(-1));
    if (frame !== kept && !keeping) keeping = setTimeout(keep, KEEP_MS);
    $("seek").value = frame;
    $("seek").setAttribute("aria-valuetext", `${seconds(frame)} seconds, frame ${frame}`);
    $("clock").textContent = `${seconds(frame)} s, frame ${frame} of ${transport.frames}`;
    $("play").textContent = transport.running ? "Pause" : "Play";
  });
  $("play").addEventListener("click", () => transport.toggle());
  $("back").addEventListener("click", () => transport.step(-1));
  $("forth").addEventListener("click", () => transport.step(1));
  $("seek").addEventListener("input", () => {
    const frame = Number($("seek").value);  // read it first, because a pause moves the handle back to the clock
    if (transport.running) transport.pause();
    transport.seek(frame);
  });
  $("size").addEventListener("input", () => {
    $("grid").classList.add("sized");
    $("grid").style.setProperty("--size", `${$("size").value}px`);
  });
  $("rate").addEventListener("change", () => { transport.rate = Number($("rate").value); });
  $("loop").addEventListener("change", () => { transport.loop = $("loop").checked; });
  $("task").addEventListener("change", () => { state.task = $("task").value; state.methods = null; showFilters(); show(); });
  $("seed").addEventListener("change", () => { state.seed = $("seed").value; show(); });
  let typing = 0;
  $("prompt").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(() => { state.prompt = $("prompt").value.trim(); show(); }, 120); });
  $("reset").addEventListener("click", () => { state.prompt = ""; state.methods = null; showFilters(); show(); });
  document.addEventListener("keydown", (event) => {
    const target = event.target;
    if (event.ctrlKey || event.metaKey || event.altKey || !inSight) return;
    if (target.matches("select, textarea, input:not([type=range]):not([type=checkbox])") || target.closest(".scroll")) return;
    const step = event.shiftKey ? BLOCK : 1;
    if (event.key === " " && !target.matches("button, summary, a, input[type=checkbox]")) transport.toggle();
    else if (event.key === "ArrowLeft") transport.step(-step);
    else if (event.key === "ArrowRight") transport.step(step);
    else if (event.key === "Escape" && opened) close();
    else return;
    event.preventDefault();
  });
  new IntersectionObserver((entries) => { inSight = entries[entries.length - 1].isIntersecting; }).observe($("videos"));
  const redraw = () => { for (const strip of document.querySelectorAll(".strip")) strip.draw?.(); };
  new ResizeObserver(() => { cancelAnimationFrame(redraw.soon); redraw.soon = requestAnimationFrame(redraw); }).observe($("grid"));
  window.addEventListener("scroll", () => { if (!document.activeElement?.matches?.(".strip:focus-visible")) hideTip(); }, { passive: true });
  document.addEventListener("scroll", tellWidth, { passive: true, capture: true });
  window.addEventListener("resize", tellWidth);
  for (const name of ["score", "against"]) $(name).addEventListener("change", tellScores);
  window.addEventListener("hashchange", () => apply());
  $("key").append(...Object.entries(DATA.kinds).map(([kind, { name }]) => make("span", {}, swatch(kind), name)), make("span", {}, make("span", { class: "swatch faded", style: "--c:var(--muted)" }), "decaying"), make("span", { text: "\u2502 a scene begins" }));
  if (DATA.parts.length) apply();
  transport.tell();
  return { take, load, transport, state, live };
})();
