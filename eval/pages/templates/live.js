// The live session's page: polls the session, shows its blocks at 16 frames per second, and sends prompts.
(async () => {
  "use strict";
  const FPS = 16, LATE = 3, SMALL = 128, FADES_MS = 8000;
  const root = element.querySelector(".live");
  const at = (name) => element.querySelector(`[data-live="${name}"]`);
  const made = (tag, text, kind) => {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (kind) node.className = kind;
    return node;
  };
  const screen = at("screen"), paint = screen.getContext("2d"), prompt = at("prompt");
  const known = { epoch: 0, after: -1, version: 0, notes: 0 };
  const scenes = new Map(), asked = new Map(), begun = new Map(), arrived = new Map(), queue = [], latencies = [];
  let idle = 0, pool = [0, 0], showing = null, drawn = -1, started = 0, fading = 0, about = null, story = 0, paused = false;

  const tell = (line, bad) => {
    at("note").textContent = line;
    at("note").classList.toggle("bad", Boolean(bad));
    at("note").classList.remove("over");
    clearTimeout(fading);
    if (!bad) fading = setTimeout(() => at("note").classList.add("over"), FADES_MS);
  };

  // ---- the video

  function draw(now) {
    requestAnimationFrame(draw);
    if (queue.length > LATE) queue.splice(0, queue.length - 1);
    const length = showing ? (showing.count * 1000) / FPS : 0;
    if (queue.length && now >= started + length) {
      const late = showing ? now - started - length : 0; // how long the last frame stalled
      started = late > 0 && late < 20 ? started + length : now;
      idle = Math.max(idle, late);
      begin(queue.shift());
    }
    if (!showing) return;
    const frame = Math.min(showing.count - 1, Math.max(0, Math.floor(((now - started) * FPS) / 1000)));
    if (frame === drawn) return;
    drawn = frame;
    paint.drawImage(showing.image, 0, frame * showing.height, showing.width, showing.height, 0, 0, showing.width, showing.height);
    if (!begun.has(showing.scene)) {
      const scene = showing.scene;
      begun.set(scene, 0);
      requestAnimationFrame(() => { begun.set(scene, performance.now()); measure(scene); }); // the frame is on the screen by now
    }
    root.dataset.frame = showing.index * showing.count + frame;
  }

  function begin(block) {
    if (screen.width !== block.width || screen.height !== block.height) {
      screen.width = block.width;
      screen.height = block.height;
      screen.style.aspectRatio = `${block.width} / ${block.height}`;
      screen.classList.toggle("small", block.height <= SMALL);
    }
    showing = block;
    drawn = -1;
    at("empty").hidden = true;
    const scene = scenes.get(block.scene), text = scene ? scene.text : "";
    at("scene").textContent = `Scene ${block.scene + 1}`;
    at("text").textContent = text;
    at("clock").textContent = `block ${block.index}, made in ${Math.round(block.made_ms)} ms`;
    screen.setAttribute("aria-label", `The video: scene ${block.scene + 1}, ${text}`);
    root.dataset.block = block.index;
    root.dataset.scene = block.scene;
    strip(block.strip, block.window);
    for (const item of at("pool").children) item.classList.toggle("running", Number(item.dataset.scene) === block.scene);
  }

  function measure(scene) {
    if (!asked.has(scene) || !begun.get(scene)) return;
    const { moment, answered } = asked.get(scene), passed = begun.get(scene) - moment, came = arrived.get(scene) - moment;
    asked.delete(scene);
    at("latency").title = `accepted after ${Math.round(answered)} ms, received after ${Math.round(came)} ms, shown after ${Math.round(passed)} ms`;
    latencies.push(passed);
    const sorted = [...latencies].sort((a, b) => a - b), half = sorted.length >> 1, middle = (sorted[half] + sorted.at(-1 - half)) / 2;
    at("latency").textContent = `${(passed / 1000).toFixed(2)} s`;
    at("latencies").textContent = latencies.length > 1 ? `median of ${latencies.length}: ${(middle / 1000).toFixed(2)} s` : "";
    root.dataset.latencies = JSON.stringify(latencies.map(Math.round));
  }

  function strip(keys, window) {
    const counts = new Map(), colours = new Map(about.legend.map(([kind, name, colour]) => [kind, [name, colour]]));
    let fading = 0;
    at("strip").replaceChildren(...keys.map(([label, position, kind, decays]) => {
      const cell = made("i"), [name, colour] = colours.get(kind);
      cell.style.backgroundColor = colour;
      cell.title = `${label.replace(/^srf(\d+)$/, (all, number) => `${all} (scene ${Number(number) + 1})`)}: ${name}${decays ? ", decaying" : ""}, at ${position === null ? "its own indices" : `index ${position}`}`;
      if (decays) cell.classList.add("decays");
      fading += decays ? 1 : 0;
      counts.set(kind, (counts.get(kind) || 0) + 1);
      return cell;
    }), ...Array.from({ length: Math.max(0, window - keys.length) }, () => made("i", "", "free")));
    at("strip").style.gridTemplateColumns = `repeat(${Math.max(window, keys.length)}, 1fr)`;
    const entries = about.legend.filter(([kind]) => counts.has(kind)).map(([kind, name, colour]) => {
      const item = made("li", ""), mark = made("i");
      mark.style.backgroundColor = colour;
      item.append(mark, `${name} ${counts.get(kind)}`);
      return item;
    });
    if (fading) {
      const item = made("li", "");
      item.append(made("i", "", "decays"), `decaying ${fading}`);
      entries.push(item);
    }
    at("legend").replaceChildren(...entries);
    at("strip").setAttribute("aria-label", [...at("legend").children].map((item) => item.textContent).join(", "));
  }

  // ---- prompts

  async function say(transition, recalls, moment) {
    const typed = prompt.value, text = typed.trim() || (recalls === null ? "" : scenes.get(recalls).text);
    const answer = await server.say({ text, transition, recalls });
    if (answer.error) return tell(answer.error, true);
    asked.set(answer.scene, { moment, answered: performance.now() - moment });
    measure(answer.scene);
    tell(answer.note);
    if (prompt.value === typed) prompt.value = ""; // the answer comes between two blocks, so the next sentence may have been begun
    prompt.focus();
  }

  // Made once per scene and changed in place, because new blocks come while it is pressed.
  function card(number) {
    const item = made("li"), button = made("button"), image = made("img");
    button.type = "button";
    button.dataset.scene = number;
    button.addEventListener("click", (event) => say("recall", number, event.timeStamp));
    image.alt = "";
    image.className = "small";
    item.dataset.scene = number;
    button.append(image, made("span"));
    item.append(button);
    at("pool").prepend(item);
    return item;
  }

  function cards() {
    const inside = (number) => about.recalls && number >= pool[0] && number < pool[1];
    at("poolsay").textContent = about.recalls ? "press one to recall it" : "this method recalls none";
    for (const scene of [...scenes.values()].sort((a, b) => a.number - b.number)) {
      const item = at("pool").querySelector(`li[data-scene="${scene.number}"]`) || card(scene.number);
      const button = item.firstChild, [image, line] = button.children;
      if (inside(scene.number)) button.removeAttribute("aria-disabled");
      else button.setAttribute("aria-disabled", "true"); // a press still gets the reason as its answer
      button.title = `${scene.text}\n${scene.how}${scene.routed && scene.number ? ", routed by the texts" : ""}\n${!inside(scene.number) ? "Not in the pool" : "Recall this scene, with the sentence above if there is one"}`;
      button.setAttribute("aria-label", `Recall scene ${scene.number + 1}: ${scene.text}`);
      if (image.src !== scene.thumb) image.src = scene.thumb;
      line.textContent = `${scene.number + 1} · ${scene.how.replace("of scene ", "")}`;
      item.classList.toggle("running", showing !== null && showing.scene === scene.number);
    }
  }

  // Words of the embedded world, one line per kind; a press inserts the word at the caret.
  function words() {
    at("words").replaceChildren(...Object.values(about.words).flatMap((kind) => [...kind.map((word) => {
      const button = made("button", word);
      button.type = "button";
      button.addEventListener("click", () => {
        const before = prompt.value.slice(0, prompt.selectionStart), gap = before && !before.endsWith(" ") ? " " : "";
        prompt.setRangeText(`${gap}${word} `, prompt.selectionStart, prompt.selectionEnd, "end");
        prompt.focus();
      });
      return button;
    }), made("i")]));
  }

  function ideas() {
    const texts = about.ideas.length ? about.ideas[story % about.ideas.length] : [];
    at("ideas").replaceChildren(...texts.slice(0, 6).map((text) => {
      const item = made("li"), button = made("button", text);
      button.type = "button";
      button.addEventListener("click", () => { prompt.value = text; prompt.focus(); });
      item.append(button);
      return item;
    }));
  }

  // ---- news

  // For the session: how many milliseconds of video are still to be shown, and how long this page stalled.
  function pace() {
    const rest = showing ? Math.max(0, started + (showing.count * 1000) / FPS - performance.now()) : 0;
    const left = queue.reduce((sum, block) => sum + (block.count * 1000) / FPS, rest), stood = idle;
    idle = 0;
    return { left, stood };
  }

  async function hear(news) {
    if (news.epoch !== known.epoch) {
      scenes.clear(); asked.clear(); begun.clear(); arrived.clear(); queue.length = 0; showing = null; latencies.length = 0;
      Object.assign(known, { epoch: news.epoch, after: -1, version: 0, notes: 0 });
      paint.clearRect(0, 0, screen.width, screen.height);
      at("empty").hidden = false;
      for (const name of ["strip", "legend", "pool"]) at(name).replaceChildren();
      for (const name of ["scene", "text", "clock", "latencies"]) at(name).textContent = "";
      at("latency").textContent = "\u2013";
      at("saved").hidden = true;
      for (const key of ["block", "scene", "frame", "latencies"]) delete root.dataset[key];
    }
    for (const scene of news.scenes) scenes.set(scene.number, scene);
    if (news.scenes.length || news.pool.join() !== pool.join()) {
      pool = news.pool;
      cards();
    }
    if (news.note) tell(news.note, true);
    paused = news.status === "paused";
    at("pause").textContent = paused ? "Continue" : "Pause";
    if (news.status !== root.dataset.status && news.status === "loading") tell("Loading the model \u2026");
    if (news.status !== "loading" && at("note").textContent.startsWith("Loading")) tell("Send chooses from the texts: smooth, hard cut or recall.");
    root.dataset.status = news.status;
    for (const name of ["pause", "save", "restart"]) at(name).disabled = !scenes.size;
    for (const name of ["smooth", "hard"]) at(name).disabled = !scenes.size;
    Object.assign(known, { version: news.version, notes: news.notes });
    for (const block of news.blocks) {
      if (!arrived.has(block.scene)) arrived.set(block.scene, performance.now());
      block.image = new Image();
      block.image.src = block.picture;
      await block.image.decode();
      queue.push(block);
      known.after = block.index;
    }
  }

  async function listen() {
    let lost = false;
    while (element.isConnected) {
      if (document.hidden) { // a hidden page asks for nothing, so no block is made
        await new Promise((done) => document.addEventListener("visibilitychange", done, { once: true }));
        continue;
      }
      try {
        await hear(await server.news({ ...known, ...pace() }));
        if (lost) tell("The session is back.");
        lost = false;
      } catch (error) {
        if (!lost) tell("The session does not answer; trying again.", true);
        lost = true;
        await new Promise((done) => setTimeout(done, 1000));
      }
    }
  }

  async function save() {
    at("save").disabled = true;
    tell("Saving …");
    const answer = await server.save({});
    at("save").disabled = false;
    if (answer.error) return tell(answer.error, true);
    at("files").replaceChildren(...answer.files.map((file) => {
      const link = made("a", `${file.name} (${Math.max(1, Math.round(file.bytes / 1024))} kB)`);
      link.href = file.href;
      link.download = file.name;
      return link;
    }));
    at("command").textContent = answer.command;
    at("saved").hidden = false;
    root.dataset.sha256 = answer.sha256;
    tell(`Saved in ${answer.folder}`);
  }

  about = await server.know({});
  at("what").textContent = `${about.method} · ${about.backbone} · seed ${about.seed} · ${about.id}`;
  ideas();
  words();
  cards();
  at("auto").addEventListener("click", (event) => say(null, null, event.timeStamp));
  at("smooth").addEventListener("click", (event) => say("smooth", null, event.timeStamp));
  at("hard").addEventListener("click", (event) => say("hard", null, event.timeStamp));
  prompt.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    say(null, null, event.timeStamp);
  });
  at("pause").addEventListener("click", () => server.pause({ paused: !paused }));
  at("save").addEventListener("click", save);
  at("restart").addEventListener("click", async () => {
    if (window.confirm("Start a new session? Everything unsaved is lost.")) await server.restart({});
  });
  at("other").addEventListener("click", () => { story += 1; ideas(); });
  at("copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(at("command").textContent);
      tell("Copied.");
    } catch {
      const range = document.createRange();
      range.selectNodeContents(at("command"));
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      tell("Marked; the browser does not let a page copy here.");
    }
  });
  requestAnimationFrame(draw);
  prompt.focus();
  listen();
})();
