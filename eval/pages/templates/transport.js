// One clock for all videos of the page. A frame is shown from its number / fps on; a paused video is in the middle of its frame.
class Transport {
  constructor(fps) {
    this.fps = fps;
    this.frames = 1;          // of the longest video that is shown
    this.position = 0;        // in frames; whole while paused
    this.rate = 1;
    this.loop = true;
    this.running = false;
    this.films = new Map();   // video element -> what is known of it, as in join
    this.listeners = [];
    this.last = 0;
    this.late = false;        // a seek waits until all videos show the frame of the one before
    this.corrected = 0;
    this.tick = this.tick.bind(this);
  }

  get frame() { return Math.min(this.frames - 1, Math.max(0, Math.floor(this.position))); }

  listen(call) { this.listeners.push(call); }

  tell() { for (const call of this.listeners) call(this.frame); }

  // A video joins when it becomes visible; frames: its number of frames.
  join(video, frames) {
    const film = { frames, wanted: null, off: null, shown: null, there: true, cover: null };
    this.films.set(video, film);
    this.watch(video, film);
    video.addEventListener("loadedmetadata", () => this.place(video, film), { once: true });
    video.addEventListener("seeked", () => {
      if (film.wanted !== null) { video.currentTime = film.wanted; film.wanted = null; return; }
      this.arrive(video, film);
      const at = video.currentTime;  // where no frames are reported (a hidden page), it is taken to be there by and by
      setTimeout(() => { if (!video.seeking && video.currentTime === at) { film.there = true; this.catchUp(); } }, 1000);
    });
    video.addEventListener("error", () => this.catchUp());
    if (video.readyState > 0) this.place(video, film);
  }

  leave(video) {
    this.films.get(video)?.cover?.remove();
    this.films.delete(video);
    this.catchUp();
  }

  // Difference between the screen and the clock in seconds, by the frames that the browser reports as presented. Requesting every
  // frame has a second use: otherwise Chromium may keep showing an old frame after a pause and a seek.
  watch(video, film) {
    if (!video.requestVideoFrameCallback) return;
    const seen = (_, { mediaTime, expectedDisplayTime }) => {
      if (this.films.get(video) !== film) return;
      if (this.running && this.last && !video.seeking) {
        const off = mediaTime - (this.position + ((expectedDisplayTime - this.last) / 1000) * this.fps * this.rate) / this.fps;
        film.off = film.off === null ? off : film.off + 0.3 * (off - film.off);
      }
      film.shown = mediaTime;
      this.arrive(video, film);
      video.requestVideoFrameCallback(seen);
    };
    video.requestVideoFrameCallback(seen);
  }

  time(film, position) {
    const frame = Math.min(position, film.frames - 1);
    return (this.running && frame === position ? frame : Math.floor(frame) + 0.5) / this.fps;
  }

  place(video, film) {
    if (video.readyState === 0 || !this.films.has(video)) return;
    const time = this.time(film, this.position);
    film.there = !video.seeking && Math.abs(video.currentTime - time) <= 1e-4;
    if (video.seeking) film.wanted = time;
    else if (!film.there) video.currentTime = time;
    film.off = null;
    if (this.running && this.position < film.frames - 1) { video.playbackRate = this.rate; video.play().catch(() => {}); }
  }

  // While paused, all videos change their pictures together: a canvas over each keeps the present one until all show the next.
  placeAll() {
    this.late = !this.running && this.waits();
    if (this.late) return;
    for (const [video, film] of this.films) this.cover(video, film);
    for (const [video, film] of this.films) this.place(video, film);
    this.catchUp();
  }

  waits() { return [...this.films].some(([video, film]) => !film.there && !video.error); }

  arrive(video, film) {
    if (video.seeking || film.shown === null || Math.abs(film.shown + 0.5 / this.fps - video.currentTime) > 0.6 / this.fps) return;
    film.there = true;
    this.catchUp();
  }

  catchUp() {
    if (!this.running && this.waits()) return;
    if (this.late) this.placeAll();
    else for (const { cover } of this.films.values()) cover?.remove();
  }

  cover(video, film) {
    if (this.running || video.readyState < 2) return;
    film.cover ??= document.createElement("canvas");
    Object.assign(film.cover, { className: video.className, width: video.videoWidth, height: video.videoHeight });
    film.cover.getContext("2d").drawImage(video, 0, 0);
    if (!film.cover.isConnected) video.after(film.cover);
  }

  resize(frames) {
    this.frames = Math.max(1, frames);
    if (this.position > this.frames - 1) this.seek(this.frames - 1);
    else this.tell();
  }

  seek(frame) {
    this.position = Math.min(this.frames - 1, Math.max(0, Math.floor(frame)));
    this.placeAll();
    this.tell();
  }

  step(frames) { if (this.running) this.pause(); this.seek(this.frame + frames); }

  play() {
    if (this.running) return;
    if (this.position >= this.frames - 1) this.position = 0;
    this.running = true;
    this.last = 0;
    this.placeAll();
    this.tell();
    requestAnimationFrame(this.tick);
  }

  pause() {
    this.running = false;
    this.position = this.frame;
    for (const [video, film] of this.films) { video.pause(); video.playbackRate = 1; this.place(video, film); }
    this.tell();
  }

  toggle() { if (this.running) this.pause(); else this.play(); }

  // The clock follows the machine's while videos keep up; it stops if none of them has a frame to show.
  tick(now) {
    if (!this.running) return;
    const passed = this.last ? Math.min(0.25, (now - this.last) / 1000) : 0;
    this.last = now;
    if (!this.stalled()) this.position += passed * this.fps * this.rate;
    if (this.position >= this.frames) {
      if (!this.loop) { this.position = this.frames - 1; this.pause(); return; }
      this.position = 0;
      this.placeAll();
    } else if (now - this.corrected > 80) {
      this.corrected = now;
      for (const [video, film] of this.films) this.correct(video, film);
    }
    this.tell();
    requestAnimationFrame(this.tick);
  }

  stalled() {
    let waiting = 0;
    for (const [video] of this.films) if (video.readyState < 3 && !video.error) waiting += 1;
    return waiting > 0 && waiting === this.films.size;
  }

  // A video that is slightly off runs a little faster or slower; one that is far off jumps.
  correct(video, film) {
    if (video.readyState < 2 || video.seeking) return;
    if (this.position >= film.frames - 1) {
      if (!video.paused) { video.pause(); this.place(video, film); }
      return;
    }
    if (video.paused) { this.place(video, film); return; }
    const off = film.off ?? video.currentTime - this.position / this.fps;
    if (Math.abs(off) > 0.3) { video.currentTime = (this.position + 0.5) / this.fps; film.off = null; }
    else video.playbackRate = this.rate * (1 - Math.max(-0.4, Math.min(0.4, Math.abs(off) < 0.006 ? 0 : off * 4)));
  }
}
