// What the web page does by itself: play a stream while it is made, follow what plays in its picture, and heed Ctrl+Enter.

window.mynah = {
  seconds: 0, // of sound that were played as streams
  awake: false, // whether a first event has gone to the machine and come back, so that the next ones are heard, too

  async play(name) {
    if (!name || name === this.name) return;
    this.name = name;
    this.context ??= new AudioContext();
    await this.context.resume();
    const answer = await fetch(`speech/${name}`);
    if (!answer.ok) return;
    const rate = Number(answer.headers.get("x-sample-rate"));
    const reader = answer.body.getReader();
    let left = new Uint8Array(0); // half of a sample, or none
    let at = 0; // when the next piece begins, in the context's time
    for (;;) {
      const { done, value } = await reader.read();
      if (done || this.name !== name) break;
      const bytes = new Uint8Array(left.length + value.length);
      bytes.set(left);
      bytes.set(value, left.length);
      const n = bytes.length >> 1;
      left = bytes.slice(2 * n);
      if (!n) continue;
      const view = new DataView(bytes.buffer);
      const piece = this.context.createBuffer(1, n, rate);
      const samples = piece.getChannelData(0);
      for (let i = 0; i < n; i++) samples[i] = view.getInt16(2 * i, true) / 32768;
      const source = this.context.createBufferSource();
      source.buffer = piece;
      source.connect(this.context.destination);
      at = Math.max(at, this.context.currentTime + 0.05);
      source.start(at);
      at += piece.duration;
      this.seconds += piece.duration;
    }
    if (this.name !== name) await reader.cancel();
  },

  stop() {
    this.name = "";
    this.context?.close();
    this.context = undefined;
  },

  ended(told) { // what was told last, once no more comes: where that is how far it was, it was stopped
    const stopped = '<div class="mynah-stopped" role="status"><p>Stopped.</p></div>';
    return told.map((one) => (one?.includes?.("mynah-doing") ? stopped : one));
  },
};

document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  const button = [...document.querySelectorAll("button.mynah-go, .mynah-go button")].find((one) => one.offsetParent !== null);
  if (!button || button.disabled) return;
  event.preventDefault();
  document.activeElement?.dispatchEvent(new Event("input", { bubbles: true })); // what was typed last counts
  button.click();
});

const beside = (one, what) => one.closest(".column")?.querySelector(what);

document.addEventListener( // a line in the picture of what plays
  "timeupdate",
  ({ target }) => {
    const line = beside(target, ".mynah-picture b");
    if (line) line.style.cssText = `left: ${(100 * target.currentTime) / target.duration}%; opacity: 0.7`;
  },
  true,
);

document.addEventListener("click", ({ target, clientX }) => { // and from there on, where the picture is clicked
  const picture = target.closest?.(".mynah-picture");
  const audio = picture && beside(picture, "audio");
  if (!audio || !audio.duration) return;
  const { left, width } = picture.getBoundingClientRect();
  audio.currentTime = (audio.duration * (clientX - left)) / width;
  audio.play();
});
