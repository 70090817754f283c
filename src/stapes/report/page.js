"use strict";
// One event handler for clicks and one for keys serve the whole text: a page may hold a hundred thousand words.
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const times = data.words; // start ms, end ms, percent; for each word in the order of the page
  const words = Array.from(document.querySelectorAll("main .w"));
  const places = new Map(words.map((word, place) => [word, place]));
  const order = words.map((_, place) => place).sort((a, b) => times[3 * a] - times[3 * b]);
  const text = byId("text"), overview = byId("overview"), head = byId("head"), about = byId("about");
  const detail = byId("detail"), sound = byId("sound"), on = byId("on");
  const levels = Uint8Array.from(atob(data.levels), (one) => one.charCodeAt(0));
  let at = 0; // seconds, where nothing plays
  let lastTime = "", lastWord = -1;
  let across = 0, width = 0, height = 0, colours = {}; // read once, as reading them lays the page out again
  let stopAt = Infinity, begun = false, now = -1, reached = 0, shown = -1, waiting = false;

  const start = (place) => times[3 * place] / 1000;
  const end = (place) => times[3 * place + 1] / 1000;
  const clock = (seconds) => {
    const hundredths = Math.round(Math.max(0, seconds) * 100);
    const two = (value) => String(value).padStart(2, "0");
    const minutes = Math.floor(hundredths / 6000), rest = two(Math.floor(hundredths / 100) % 60) + "." + two(hundredths % 100);
    return minutes < 60 ? `${minutes}:${rest}` : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${rest}`;
  };
  const position = () => (sound ? sound.currentTime : at);

  // The sound inside the page becomes a Blob, in pieces, in which the browser can seek.
  const bytes = byId("bytes");
  if (sound && bytes) {
    const written = bytes.textContent, pieces = [], step = 1 << 20; // whole groups of four
    for (let first = 0; first < written.length; first += step)
      pieces.push(Uint8Array.from(atob(written.slice(first, first + step)), (one) => one.charCodeAt(0)));
    sound.src = URL.createObjectURL(new Blob(pieces, { type: bytes.dataset.type }));
    bytes.remove();
  }

  const countBegun = (seconds) => {
    let low = 0, high = order.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (start(order[middle]) <= seconds + 0.001) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  // The last word that has begun at a moment, if it has not ended.
  const wordAt = (seconds) => {
    const count = countBegun(seconds);
    return count && end(order[count - 1]) > seconds ? order[count - 1] : -1;
  };

  const mark = (place) => {
    if (place === now) return;
    if (now >= 0) words[now].classList.remove("now");
    if (place >= 0) words[place].classList.add("now");
    now = place;
  };
  const describe = (place) => {
    shown = place;
    const share = (times[3 * place + 2] / 100).toFixed(2);
    about.textContent = `\u2068${words[place].textContent}\u2069  ${clock(start(place))} – ${clock(end(place))}, probability ${share}`;
  };
  const forget = () => { shown = -1; lastTime = ""; };
  const show = () => {
    const seconds = position();
    mark(begun ? wordAt(seconds) : -1);
    head.style.transform = `translateX(${(Math.min(1, seconds / data.duration_s) * across).toFixed(1)}px)`;
    const shownTime = clock(seconds);
    if (shownTime === lastTime && now === lastWord) return;
    lastTime = shownTime;
    lastWord = now;
    overview.setAttribute("aria-valuenow", Math.round(seconds));
    overview.setAttribute("aria-valuetext", shownTime);
    if (shown < 0) about.textContent = `${shownTime} of ${clock(data.duration_s)}`;
    draw(seconds);
  };

  // Some seconds around the moment, with the words below the levels.
  const draw = (seconds) => {
    if (!width) return;
    const ratio = window.devicePixelRatio || 1, pen = detail.getContext("2d");
    const first = left(), scale = width / span(), middle = (height - 20) / 2;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.fillStyle = colours.wave;
    for (let x = 0; x < width; x++) {
      const from = Math.floor((first + x / scale) * levels.length / data.duration_s);
      const level = ((levels[from] || 0) / 255) * (middle - 2);
      pen.fillRect(x, middle - level, 1, Math.max(1, 2 * level));
    }
    pen.font = "13px system-ui, sans-serif";
    pen.textBaseline = "bottom";
    // A word that began a minute before the picture has ended, or has no time.
    for (let which = countBegun(first - 60); which < order.length; which++) {
      const place = order[which];
      if (end(place) < first) continue;
      if (start(place) > first + span()) break;
      const x = (start(place) - first) * scale, room = (end(place) - start(place)) * scale;
      pen.fillStyle = place === now ? colours.head : colours.line;
      pen.fillRect(x, place === now ? 0 : height - 20, place === now ? Math.max(2, room) : 1, place === now ? 3 : 20);
      pen.fillStyle = colours.ink;
      pen.save();
      pen.beginPath();
      pen.rect(x, height - 20, Math.max(0, room), 20);
      pen.clip();
      pen.fillText(words[place].textContent, x + 3, height - 2);
      pen.restore();
    }
    pen.fillStyle = colours.head;
    pen.fillRect((seconds - first) * scale - 1, 0, 2, height);
  };
  const span = () => Math.min(data.duration_s, Math.max(4, width / 90));
  const left = () => Math.max(0, Math.min(data.duration_s - span(), position() - span() / 3));

  const go = (seconds) => {
    begun = true;
    at = Math.max(0, Math.min(data.duration_s, seconds));
    if (sound) sound.currentTime = at;
    show();
  };
  const play = (seconds, until) => {
    go(seconds);
    stopAt = until;
    if (sound) sound.play().catch(() => { about.textContent = "This browser cannot play the sound."; });
  };
  const playWord = (place, playOn) => {
    reach(place);
    describe(place);
    // A word of less than 0.15 s is hardly audible.
    play(start(place), playOn || (on && on.checked) ? Infinity : Math.max(end(place), start(place) + 0.15));
  };
  const tick = () => {
    if (!sound || sound.paused) return;
    if (sound.currentTime >= stopAt) {
      sound.pause();
      stopAt = Infinity;
    }
    show();
    requestAnimationFrame(tick);
  };

  // Tab reaches one word; arrow keys move to the others.
  const reach = (place) => {
    words[reached].removeAttribute("tabindex");
    words[reached].removeAttribute("role");
    reached = place;
    words[place].tabIndex = 0;
    words[place].setAttribute("role", "button");
  };
  const wordOf = (event) => {
    const word = event.target.closest ? event.target.closest("main .w") : null;
    return word ? places.get(word) : undefined;
  };

  text.addEventListener("click", (event) => {
    const place = wordOf(event);
    if (place === undefined || String(getSelection())) return;
    playWord(place, event.shiftKey);
  });
  text.addEventListener("mousedown", (event) => {
    if (event.shiftKey && wordOf(event) !== undefined) event.preventDefault(); // or Shift would select text
  });
  for (const kind of ["pointerover", "focusin"])
    text.addEventListener(kind, (event) => {
      const place = wordOf(event);
      if (place !== undefined) describe(place);
    });
  text.addEventListener("pointerleave", () => { forget(); show(); });
  text.addEventListener("focusout", () => { forget(); show(); });
  text.addEventListener("keydown", (event) => {
    const place = wordOf(event);
    if (place === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    const rightToLeft = getComputedStyle(words[place]).direction === "rtl";
    const steps = { ArrowRight: rightToLeft ? -1 : 1, ArrowLeft: rightToLeft ? 1 : -1 };
    if (event.key === "Enter") playWord(place, event.shiftKey);
    else if (event.key in steps) {
      const next = Math.max(0, Math.min(words.length - 1, place + steps[event.key]));
      reach(next);
      words[next].focus();
    } else return;
    event.preventDefault();
  });
  document.addEventListener("click", (event) => {
    const time = event.target.closest ? event.target.closest("a.time") : null;
    if (!time || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    forget();
    play(Number(time.dataset.s), Infinity);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== " " || !sound || event.target.closest("a, audio, button, input, summary")) return;
    event.preventDefault();
    stopAt = Infinity;
    if (sound.paused) play(position(), Infinity);
    else sound.pause();
  });

  const along = (element, event, first, seconds) => {
    const box = element.getBoundingClientRect();
    return first + (seconds * (event.clientX - box.left)) / box.width;
  };
  const seek = (seconds) => {
    stopAt = Infinity;
    forget();
    go(seconds);
    const word = words[wordAt(seconds)] || words[order[countBegun(seconds)]];
    const line = word && word.closest(".segment");
    if (line) line.scrollIntoView({ block: "nearest" });
  };
  overview.addEventListener("click", (event) => seek(along(overview, event, 0, data.duration_s)));
  detail.addEventListener("click", (event) => seek(along(detail, event, left(), span())));
  overview.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 5, ArrowUp: 5, ArrowLeft: -5, ArrowDown: -5, PageUp: 30, PageDown: -30 };
    if (event.key in steps) seek(position() + steps[event.key]);
    else if (event.key === "Home") seek(0);
    else if (event.key === "End") seek(data.duration_s);
    else return;
    event.preventDefault();
  });

  if (sound) {
    sound.addEventListener("play", () => { begun = true; requestAnimationFrame(tick); });
    for (const kind of ["seeked", "timeupdate", "pause"]) sound.addEventListener(kind, () => {
      if (!sound.paused && sound.currentTime >= stopAt) sound.pause();
      if (!waiting) {
        waiting = true;
        requestAnimationFrame(() => { waiting = false; show(); });
      }
    });
  }
  // A closed block that a link points into opens; a printed page opens all of them.
  const open = () => {
    const target = location.hash.length > 1 ? byId(location.hash.slice(1)) : null;
    if (target && target.tagName === "DETAILS") target.open = true;
  };
  addEventListener("hashchange", open);
  addEventListener("beforeprint", () => { for (const one of document.querySelectorAll("details.window")) one.open = true; });
  const measure = () => {
    const style = getComputedStyle(document.documentElement), ratio = window.devicePixelRatio || 1;
    for (const name of ["wave", "head", "line", "ink"]) colours[name] = style.getPropertyValue(`--${name}`);
    across = overview.clientWidth;
    width = detail.clientWidth;
    height = detail.clientHeight;
    detail.width = Math.round(width * ratio);
    detail.height = Math.round(height * ratio);
    lastTime = "";
    show();
  };
  addEventListener("resize", measure);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", measure);
  document.documentElement.classList.add("live");
  detail.hidden = head.hidden = false;
  if (words.length) reach(0);
  open();
  measure();
})();
