(() => {
  "use strict";
  const $ = (id) => document.getElementById(id);
  // A study may need the rater's id: then the link contains it, and each person's answers are kept separately.
  const named = STUDY.rater ? new URLSearchParams(location.search).get(STUDY.rater) || "" : "";
  const PERSON = /^[\w.@-]{1,100}$/.test(named) ? named : "";
  const KEPT = `study-${STUDY.study}${PERSON && `-${PERSON}`}`;
  const CRITERIA = STUDY.criteria.map((criterion) => criterion.id);
  const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
  const tasks = new Map(STUDY.tasks.map((task) => [task.id, task]));
  const groups = new Map(STUDY.tasks.flatMap((task) => task.groups.map((group) => [group.id, group])));
  const asked = [...groups.values()].reduce((sum, group) => sum + group.videos.length * CRITERIA.length, 0);

  // The same shuffle as eval/study/order.py: sorted by a hash of rater and name.
  const stirred = (text) => {
    let value = 0x811c9dc5;
    for (const byte of new TextEncoder().encode(text)) value = Math.imul(value ^ byte, 0x01000193);
    value = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
    value = Math.imul(value ^ (value >>> 13), 0xc2b2ae35);
    return (value ^ (value >>> 16)) >>> 0;
  };
  const shuffled = (rater, names) => names.map((name) => [stirred(`${rater}/${name}`), name])
    .sort((one, other) => one[0] - other[0] || (one[1] < other[1] ? -1 : 1)).map((pair) => pair[1]);
  const practiceFirst = (one, other) => (other === STUDY.practice) - (one === STUDY.practice);
  const orderOf = (rater) => shuffled(rater, [...tasks.keys()]).sort(practiceFirst).flatMap((task) =>
    shuffled(rater, tasks.get(task).groups.map((group) => group.id)).map((group) =>
      ({ task, group, videos: shuffled(rater, groups.get(group).videos) })));

  // The stored state: a rater's id, place and answers; everything else follows from them.
  const now = () => new Date().toISOString();
  const begun = () => ({
    v: STUDY.v, rater: [...crypto.getRandomValues(new Uint8Array(8))].map((byte) => byte.toString(16).padStart(2, "0")).join(""),
    started: now(), at: -1, consented: "", groups: {},
  });
  const warn = (text) => { $("warning").textContent = text; $("warning").hidden = !text; };
  const load = () => {
    try {
      const kept = JSON.parse(localStorage.getItem(KEPT) || "null");
      return kept && kept.v === STUDY.v && /^[0-9a-f]{16}$/.test(kept.rater) ? kept : null;
    } catch { return null; }
  };
  const keep = () => {
    if (asleep) return;
    try { localStorage.setItem(KEPT, JSON.stringify(state)); } catch {
      warn("This browser keeps nothing for this page. Please do not close it before you have saved your file at the end.");
    }
  };
  let asleep = false;
  let state = load() || begun();
  let order = orderOf(state.rater);
  const about = (id) => (state.groups[id] ||= { opened: now(), spent_s: 0, played: {}, ratings: {} });
  const given = (id) => Object.values((state.groups[id] || { ratings: {} }).ratings).reduce((sum, one) => sum + Object.keys(one).length, 0);
  const wanted = (id) => groups.get(id).videos.length * CRITERIA.length;
  const total = () => order.reduce((sum, step) => sum + given(step.group), 0);

  // Videos of a group, on one clock. A frame is shown from its middle, so that rounding never shows its neighbour.
  let shown = null, videos = [], playing = false, blobs = new Map(), ticking = 0;
  const lead = () => videos[0];
  const middle = (frame) => (frame + 0.5) / shown.fps;
  const frameOf = (time) => Math.max(0, Math.min(shown.frames - 1, Math.floor(time * shown.fps + 0.001)));
  const clock = (time) => `${Math.floor(time / 60)}:${(time % 60).toFixed(1).padStart(4, "0")}`;
  const say = (frame) => {
    const time = frame / shown.fps;
    $("seek").value = frame;
    $("seek").setAttribute("aria-valuetext", clock(time));
    $("clock").textContent = `${clock(time)} / ${clock(shown.frames / shown.fps)}`;
    const at = shown.scenes.findLastIndex((scene) => scene.at <= time + 1e-6);
    const lines = [...$("scenes").children];
    if (lines[at].classList.contains("now")) return;
    lines.forEach((line, index) => line.classList.toggle("now", index === at));
    $("scenes").scrollTop = lines[at].offsetTop - lines[0].offsetTop;  // scroll the shown scene's text to the top
  };
  const seek = (frame) => {
    const to = Math.max(0, Math.min(shown.frames - 1, frame));
    for (const video of videos) video.currentTime = middle(to);
    say(to);
  };
  const pause = (exact = true) => {
    if (!playing) return;
    playing = false;
    cancelAnimationFrame(ticking);
    for (const video of videos) { video.pause(); video.playbackRate = 1; }
    $("playing").textContent = "Play all";
    if (exact && shown) seek(frameOf(lead().currentTime));
  };
  const tick = () => {
    if (!playing) return;
    const time = lead().currentTime;
    for (const video of videos.slice(1)) {
      const late = time - video.currentTime;
      if (Math.abs(late) > 0.25) video.currentTime = time;
      else video.playbackRate = Math.abs(late) < 0.5 / shown.fps ? 1 : late > 0 ? 1.08 : 0.92;
    }
    about(shown.id).played[Math.floor(time)] = 1;
    say(frameOf(time));
    if (lead().ended) { pause(false); seek(shown.frames - 1); } else ticking = requestAnimationFrame(tick);
  };
  const play = async () => {
    if ($("play").disabled) return;
    if (playing) { pause(); return; }
    if (frameOf(lead().currentTime) >= shown.frames - 1) seek(0);
    playing = true;
    $("playing").textContent = "Pause";
    const own = shown;
    try { await Promise.all(videos.map((video) => video.play())); } catch { if (own === shown) pause(); return; }
    if (own === shown) ticking = requestAnimationFrame(tick);
  };
  // From a web host whole files are fetched first, since not every host supports seeking.
  const address = async (name) => {
    const path = `videos/${name}.mp4`;
    if (!location.protocol.startsWith("http")) return path;
    if (!blobs.has(name)) {
      blobs.set(name, fetch(path).then((answer) => (answer.ok ? answer.blob() : Promise.reject(new Error(path))))
        .then((blob) => URL.createObjectURL(blob)).catch(() => { blobs.delete(name); return path; }));
    }
    return blobs.get(name);
  };
  const forget = (wantedNames) => {
    for (const [name, made] of blobs) {
      if (wantedNames.includes(name)) continue;
      blobs.delete(name);
      made.then((url) => { if (url.startsWith("blob:")) URL.revokeObjectURL(url); });
    }
  };

  const make = (tag, fields = {}, ...inside) => {
    const made = Object.assign(document.createElement(tag), fields);
    made.append(...inside);
    return made;
  };
  const lineOf = (video, letter, criterion) => {
    const points = make("div", { className: "points" });
    for (const point of STUDY.points) {
      const end = point === STUDY.points[0] ? `, ${STUDY.ends[0]}` : point === STUDY.points.at(-1) ? `, ${STUDY.ends[1]}` : "";
      const input = make("input", { type: "radio", name: `${video}-${criterion.id}`, value: point, ariaLabel: `${point}${end}` });
      input.checked = (about(shown.id).ratings[video] || {})[criterion.id]?.[0] === point;
      input.addEventListener("change", () => rate(video, criterion.id, point));
      points.append(make("label", {}, input, `${point}`));
    }
    const line = make("div", { className: "line", role: "radiogroup", ariaLabel: `${criterion.name}, video ${letter}`, title: criterion.asked },
      make("span", { textContent: criterion.name, ariaHidden: "true" }), points);
    Object.assign(line.dataset, { video, criterion: criterion.id });
    return line;
  };
  const cardOf = (name, index) => {
    const letter = LETTERS[index] || `${index + 1}`;
    const video = make("video", { muted: true, playsInline: true, preload: "auto", disablePictureInPicture: true, ariaLabel: `Video ${letter}` });
    video.style.aspectRatio = `${shown.width} / ${shown.height}`;
    if (shown.height <= 256) video.style.imageRendering = "pixelated";
    video.addEventListener("click", play);
    const large = make("button", { type: "button", className: "quiet", textContent: "Large", ariaLabel: `Video ${letter} large` });
    large.setAttribute("aria-pressed", "false");
    const head = make("h3", {}, make("span", {}, `Video ${letter}`, make("span", { className: "tick", textContent: "✓", title: "rated" })), large);
    const card = make("section", { className: "video", ariaLabel: `Video ${letter}` }, head, video);
    large.addEventListener("click", () => large.setAttribute("aria-pressed", `${card.classList.toggle("large")}`));
    const ends = make("div", { className: "ends", ariaHidden: "true" }, make("span", { textContent: `1 ${STUDY.ends[0]}` }),
      make("span", { textContent: `${STUDY.points.at(-1)} ${STUDY.ends[1]}` }));
    card.append(ends, ...STUDY.criteria.map((criterion) => lineOf(name, letter, criterion)));
    card.dataset.video = name;
    return { card, video };
  };
  const lines = () => [...document.querySelectorAll("#videos .line")];
  // Digits rate the marked line, independent of the focus: the last line with the focus, or the first open one of a clicked video.
  let marked = null;
  const mark = (line) => {
    marked?.classList.remove("at");
    marked = line;
    marked?.classList.add("at");
  };
  const firstOpen = (all) => all.find((line) => !line.querySelector("input:checked")) || all[0];
  const focusLine = (line, quietly = {}) => {
    mark(line);
    (line.querySelector("input:checked") || line.querySelector("input")).focus(quietly);
  };
  const rate = (video, criterion, point) => {
    const since = (Date.now() - Date.parse(state.started)) / 1000;
    (about(shown.id).ratings[video] ||= {})[criterion] = [point, Math.round(since * 10) / 10];
    keep();
    progress();
  };
  const progress = () => {
    const done = total();
    $("done").style.width = `${(100 * done) / asked}%`;
    $("count").textContent = `· ${done} of ${asked} ratings given`;
    order.forEach((step, index) => {
      const button = $("overview").querySelector(`[data-index="${index}"]`), number = given(step.group);
      button.className = number === wanted(step.group) ? "all" : number ? "some" : "";
      button.ariaLabel = `Group ${index + 1}, ${number} of ${wanted(step.group)} ratings`;
      if (index === state.at) button.setAttribute("aria-current", "step"); else button.removeAttribute("aria-current");
    });
    if (!shown) return;
    const lack = wanted(shown.id) - given(shown.id);
    $("lack").textContent = lack ? `${lack} rating${lack === 1 ? "" : "s"} of this group still to give` : "This group is complete";
    for (const card of $("videos").children) {
      const own = about(shown.id).ratings[card.dataset.video] || {};
      card.classList.toggle("whole", Object.keys(own).length === CRITERIA.length);
    }
  };
  const overview = () => {
    $("overview").replaceChildren(...order.flatMap((step, index) => {
      const button = make("button", { type: "button", textContent: `${index + 1}` });
      button.dataset.index = index;
      button.addEventListener("click", () => go(index));
      return index && order[index - 1].task !== step.task ? [make("span", { className: "gap" }), button] : [button];
    }));
  };
  const leave = () => {
    pause(false);
    for (const video of videos) { video.removeAttribute("src"); video.load(); }
    videos = [];
    shown = null;
    mark(null);
  };
  const stage = (step) => {
    shown = groups.get(step.group);
    about(shown.id);
    const task = tasks.get(step.task);
    $("task").textContent = task.name;
    $("focus").textContent = shown.check
      ? `This group checks that texts are read: please give every video here ${shown.check} points in every respect.` : task.focus;
    $("scenes").replaceChildren(...shown.scenes.map((scene, index) => {
      const button = make("button", { type: "button" }, make("span", { textContent: `${index + 1}` }),
        make("span", { textContent: clock(Math.round(scene.at)).replace(/\.\d$/, "") }), make("span", { textContent: scene.text }));
      button.addEventListener("click", () => { pause(false); seek(Math.ceil(scene.at * shown.fps - 1e-6)); });
      return make("li", {}, button);
    }));
    $("seek").max = shown.frames - 1;
    $("borders").replaceChildren(...shown.scenes.slice(1).map((scene) => {
      const mark = make("i");  // the thumb of a range is 16 px wide, and its middle never reaches the ends
      const share = scene.at * shown.fps / Math.max(1, shown.frames - 1);
      mark.style.left = `calc(8px + ${share} * (100% - 16px))`;
      return mark;
    }));
    const cards = step.videos.map(cardOf);
    $("videos").classList.toggle("wide", shown.width > 1.3 * shown.height);
    $("videos").replaceChildren(...cards.map((one) => one.card));
    videos = cards.map((one) => one.video);
    const own = shown;
    let loaded = 0;
    const ready = () => {
      $("play").disabled = loaded < videos.length;
      $("playing").textContent = loaded < videos.length ? `Loading ${loaded} of ${videos.length}` : "Play all";
    };
    ready();
    cards.forEach(async (one, index) => {
      const source = await address(step.videos[index]);
      if (own !== shown) return;
      one.video.src = source;
      one.video.addEventListener("loadeddata", () => {
        if (own !== shown) return;
        loaded += 1;
        ready();
        one.video.currentTime = middle(Number($("seek").value));
      }, { once: true });
      one.video.addEventListener("error", () => { if (own === shown) warn("A video of this group cannot be loaded. Please reload the page."); }, { once: true });
    });
    say(0);
    const next = order[state.at + 1];
    forget([...step.videos, ...(next ? next.videos : [])]);
    if (next) next.videos.forEach(address);
  };
  const go = (at) => {
    leave();
    warn("");
    state.at = Math.max(-1, Math.min(order.length, at));
    const step = order[state.at];
    $("intro").hidden = state.at !== -1;
    $("rate").hidden = !step;
    $("end").hidden = state.at !== order.length;
    $("where").hidden = state.at === -1;
    $("kept").textContent = "· kept in this browser";
    $("place").textContent = step ? `Group ${state.at + 1} of ${order.length}` : "All groups";
    $("next").textContent = state.at === order.length - 1 ? "Finish" : "Next group";
    if (step) stage(step);
    if (state.at === order.length) finish();
    keep();
    progress();
    if (step) focusLine(firstOpen(lines()), { preventScroll: true });
    scrollTo({ top: 0, behavior: "instant" });
  };
  const finish = () => {
    const lack = asked - total();
    $("whole").textContent = lack ? `${lack} of ${asked} ratings are still missing. A file without them can be saved, but may not be counted.`
      : `All ${asked} ratings are given.`;
    $("thanks").textContent = lack ? "Not finished yet" : "Thank you";
    $("fill").hidden = !lack;
    $("fill").classList.toggle("main", lack > 0);
    $("save").classList.toggle("main", !lack);
    $("save").textContent = lack ? "Save the unfinished file" : "Save the file";
    $("another").hidden = true;
    $("saved").textContent = "";
  };
  const answers = () => ({
    v: STUDY.v, study: STUDY.study, page: STUDY.page, rater: state.rater, started: state.started, saved: now(), complete: total() === asked,
    participant: PERSON, consented: state.consented || "",
    order,
    groups: Object.fromEntries(Object.entries(state.groups).map(([id, one]) => [id, {
      opened: one.opened, spent_s: Math.round(one.spent_s * 10) / 10, played_s: Object.keys(one.played).length, ratings: one.ratings,
    }])),
  });
  const save = () => {
    const url = URL.createObjectURL(new Blob([JSON.stringify(answers(), null, 1)], { type: "application/json" }));
    const name = `answers-${STUDY.study.slice(0, 6)}-${state.rater.slice(0, 8)}.json`;
    make("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
    $("saved").textContent = `Saved as ${name}, where this browser puts downloads.`;
    $("another").hidden = Boolean(PERSON);
    if ($("finish")) $("finish").hidden = false;
  };
  const restart = () => {
    leave();
    try { localStorage.removeItem(KEPT); } catch { /* nothing was kept */ }
    state = begun();
    order = orderOf(state.rater);
    open();
  };

  const keys = {
    " ": () => play(), p: () => play(), n: () => go(state.at + 1), b: () => go(state.at - 1),
    ",": () => { pause(false); seek(frameOf(lead().currentTime) - 1); }, ".": () => { pause(false); seek(frameOf(lead().currentTime) + 1); },
    arrowleft: () => jump(-2), arrowright: () => jump(2), arrowup: () => step(-1), arrowdown: () => step(1),
    l: () => marked?.closest(".video").querySelector("h3 button").click(),
  };
  const WALKS = [",", "."];  // only these and the arrows repeat while they are held
  const jump = (seconds) => { const frame = frameOf(lead().currentTime); pause(false); seek(frame + Math.round(seconds * shown.fps)); };
  const step = (by) => {
    const all = lines(), at = all.indexOf(marked);
    const to = at < 0 ? all.at(by > 0 ? 0 : -1) : all[at + by];
    if (to) focusLine(to); else if (by > 0) { mark(null); $("next").focus(); }
  };
  addEventListener("keydown", (event) => {
    if (!shown || $("sure").open) return;
    const key = event.key.toLowerCase(), arrow = key.startsWith("arrow");
    // A radio button's own reaction to an arrow or Space would be an unintended rating, with Ctrl or without.
    if (event.target.type === "radio" && (arrow || key === " ")) event.preventDefault();
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (STUDY.points.map(String).includes(key)) {
      const line = marked, input = line?.querySelector(`input[value="${key}"]`);
      if (line && !event.repeat) {
        if (!input.checked) { input.checked = true; rate(line.dataset.video, line.dataset.criterion, Number(key)); }
        step(1);
      }
    } else if (key in keys && !(arrow && event.target.id === "seek")) {
      if (!event.repeat || arrow || WALKS.includes(key)) keys[key]();
    } else return;
    event.preventDefault();
  });
  addEventListener("keyup", (event) => { if (shown && !$("sure").open && event.key === " ") event.preventDefault(); });  // buttons act on keyup
  $("videos").addEventListener("focusin", (event) => { const line = event.target.closest(".line"); if (line) mark(line); });
  $("videos").addEventListener("click", (event) => {
    const card = event.target.closest(".video"), own = card ? [...card.querySelectorAll(".line")] : [];
    const line = event.target.closest(".line") || (own.includes(marked) ? marked : firstOpen(own));
    if (line) mark(line);
  });
  $("play").addEventListener("click", play);
  $("seek").addEventListener("input", () => { pause(false); seek(Number($("seek").value)); });
  $("next").addEventListener("click", () => go(state.at + 1));
  $("back").addEventListener("click", () => go(state.at - 1));
  $("save").addEventListener("click", save);
  $("fill").addEventListener("click", () => go(order.findIndex((one) => given(one.group) < wanted(one.group))));
  $("begin").addEventListener("click", () => go(Math.max(0, order.findIndex((one) => given(one.group) < wanted(one.group)))));
  for (const id of ["another", "over"]) $(id).addEventListener("click", () => $("sure").showModal());
  $("sure").addEventListener("close", () => { if ($("sure").returnValue === "yes") restart(); });
  let before = performance.now();
  setInterval(() => {
    const passed = performance.now() - before;
    before = performance.now();
    if (shown && document.visibilityState === "visible") about(shown.id).spent_s += Math.min(passed, 1000) / 1000;
  }, 250);
  setInterval(() => { if (shown) keep(); }, 5000);
  addEventListener("pagehide", () => { if (shown) keep(); });
  addEventListener("storage", (event) => {
    if (event.key !== KEPT || asleep) return;
    leave();
    asleep = true;  // another tab continues with the same answers, which this one must not overwrite
    for (const id of ["where", "intro", "rate", "end"]) $(id).hidden = true;
    $("elsewhere").hidden = false;
  });
  $("here").addEventListener("click", () => {
    asleep = false;
    $("elsewhere").hidden = true;
    state = load() || begun();
    order = orderOf(state.rater);
    open();
  });

  const mayBegin = () => { $("begin").disabled = Boolean(($("agreed") && !state.consented) || ($("person") && !PERSON)); };
  $("agreed")?.addEventListener("change", () => { state.consented = $("agreed").checked ? now() : ""; keep(); mayBegin(); });
  const open = () => {
    overview();
    $("total").textContent = `${order.length} groups with ${asked} ratings`;
    const begunBefore = total() > 0;
    $("begin").textContent = begunBefore ? "Continue" : "Begin";
    $("over").hidden = !begunBefore || Boolean(PERSON);
    if ($("agreed")) $("agreed").checked = Boolean(state.consented);
    if ($("person")) {
      $("person").textContent = PERSON ? `You take part as ${PERSON}.`
        : `The address of this page does not say who you are (${STUDY.rater}): please open it by the link that you got.`;
      $("person").classList.toggle("bad", !PERSON);
    }
    mayBegin();
    go(state.at);
  };
  open();
})();
