// The stroke editor. gradio calls this text as a function of `element`, `props`, `trigger`, `watch` and `server`.
// The component's value is JSON: { image, width, height, strokes, file }; `file` is this project's trajectory object.

const SVG = "http://www.w3.org/2000/svg";
const [MAX_SIDE, PLAY_MS, UNDO_STEPS] = [1536, 2000, 200];
const COLOURS = { object: "#f2542d", camera: "#2563eb", pin: "#0d9468" };
const NAMES = { object: "Object", camera: "Camera", pin: "Pin" };
const find = (selector) => element.querySelector(selector);
const all = (selector) => [...element.querySelectorAll(selector)];
const root = find(".ic");
const stage = find(".ic-stage");
const svg = find(".ic-svg");
const blank = () => ({ image: "", width: 0, height: 0, strokes: [] });

let state = blank();
let tool = "object";
let chosen = -1; // number of the selected stroke
let point = -1; // number of its selected point
let open = false; // whether clicks append to the selected stroke
let [drag, moment, playing, sent] = [null, 0, 0, ""];
let [estimate, undone, done] = [[], [], []];

const say = (text, bad = false) => {
  find(".ic-status").textContent = text;
  find(".ic-status").classList.toggle("ic-bad", bad);
};

const mode = () => {
  const kinds = new Set(state.strokes.map((s) => (s.kind === "camera" ? "camera" : "object")));
  return kinds.size === 2 ? "both" : [...kinds][0] || "";
};

/** The strokes as this project's trajectory object; pins are object strokes of one point. */
const file = () => {
  const [camera, object] = [true, false].map((is) => state.strokes.filter((s) => (s.kind === "camera") === is).map(timed));
  const [trajectories, times] = [object.map((s) => s.points), object.map((s) => s.times)];
  const moves = { camera_trajectories: camera.map((s) => s.points), camera_times: camera.map((s) => s.times) };
  return { width: state.width, height: state.height, trajectories, times, ...moves };
};

/** Tell the page what is drawn. */
const send = () => {
  sent = JSON.stringify({ ...state, mode: mode(), file: file() });
  props.value = sent;
  trigger("change");
};

/** Remember the strokes before a change. */
const remember = () => {
  done = [...done.slice(-UNDO_STEPS), JSON.stringify(state.strokes)];
  undone = [];
};

const restore = (from, to) => {
  if (!from.length) return;
  to.push(JSON.stringify(state.strokes));
  state.strokes = JSON.parse(from.pop());
  [chosen, point, open] = [-1, -1, false];
  changed();
};

/** After each change of the strokes. */
const changed = () => {
  estimate = [];
  draw();
  send();
};

const make = (name, attributes, parent) => {
  const node = document.createElementNS(SVG, name);
  Object.entries(attributes).forEach(([key, value]) => node.setAttribute(key, value));
  parent.append(node);
  return node;
};

/** Length in picture pixels of one pixel on the screen. */
const unit = () => {
  const box = svg.getBoundingClientRect();
  return Math.max(state.width / (box.width || 1), state.height / (box.height || 1)) || 1;
};

const outline = (stroke) => {
  const { points, times } = timed({ ...stroke, start: 0, end: 1 });
  const places = positions(points, times, points.length > 2 ? 40 : 2);
  return places.map(([x, y], i) => `${i ? "L" : "M"}${(x + 0.5).toFixed(2)} ${(y + 0.5).toFixed(2)}`).join("");
};

const drawStroke = (stroke, number, parent) => {
  const [u, colour, active] = [unit(), COLOURS[stroke.kind], number === chosen];
  const [x, y] = stroke.points[0];
  const group = make("g", { "data-stroke": number }, parent);
  if (stroke.points.length > 1) {
    const d = outline(stroke);
    make("path", { class: "ic-path ic-halo", d, "stroke-width": (active ? 7 : 5.5) * u }, group);
    make("path", { class: "ic-path", d, stroke: colour, "stroke-width": (active ? 4 : 3) * u }, group);
    make("path", { class: "ic-hit", d, "stroke-width": 22 * u, "data-hit": number }, group);
    const [tip, before] = [stroke.points.at(-1), stroke.points.at(-2)];
    const angle = (Math.atan2(tip[1] - before[1], tip[0] - before[0]) * 180) / Math.PI;
    const place = `translate(${tip[0] + 0.5} ${tip[1] + 0.5}) rotate(${angle}) scale(${u})`;
    make("path", { d: "M9 0L-6 -7L-3 0L-6 7Z", fill: colour, stroke: "#fff", "stroke-width": 1.5, transform: place }, group);
  } else {
    make("circle", { class: "ic-hit", cx: x + 0.5, cy: y + 0.5, r: 4 * u, "stroke-width": 20 * u, "data-hit": number }, group);
  }
  const style = { fill: colour, stroke: "#fff", "stroke-width": 2 * u, "pointer-events": "none" };
  make("circle", { cx: x + 0.5, cy: y + 0.5, r: (stroke.kind === "pin" ? 6.5 : 5) * u, ...style }, group);
  if (!active) return;
  stroke.points.forEach(([px, py], i) => {
    const look = { r: (i === point ? 8 : 6.5) * u, stroke: colour, "stroke-width": (i === point ? 4 : 2.5) * u };
    make("circle", { class: "ic-handle", cx: px + 0.5, cy: py + 0.5, "data-point": i, ...look }, group);
  });
};

/** The dots at the present moment, and the frame of the estimate. */
const drawMoment = () => {
  const marks = find(".ic-marks");
  marks.replaceChildren();
  const shown = playing || moment > 0;
  find(".ic-badge").hidden = !(shown && estimate.length);
  const still = estimate.length && shown ? estimate[Math.round(moment * (estimate.length - 1))] : state.image;
  if (find(".ic-image").getAttribute("href") !== still) find(".ic-image").setAttribute("href", still);
  find(".ic-time").value = Math.round(moment * 1000);
  if (!shown) return;
  state.strokes.forEach((stroke) => {
    const { points, times } = timed(stroke);
    const [x, y] = placesAt(points, times, [moment])[0];
    make("circle", { cx: x + 0.5, cy: y + 0.5, r: 7 * unit(), fill: "#fff", stroke: COLOURS[stroke.kind], "stroke-width": 3 * unit() }, marks);
  });
};

const drawList = () => {
  const items = state.strokes.map((stroke, number) => {
    const item = document.createElement("li");
    const button = document.createElement("button");
    const dot = document.createElement("i");
    dot.className = `ic-dot ic-${stroke.kind}`;
    const timing = stroke.start > 0 || stroke.end < 1 ? ` ${Math.round(stroke.start * 100)}–${Math.round(stroke.end * 100)} %` : "";
    button.type = "button";
    button.append(dot, `${NAMES[stroke.kind]} ${number + 1}${timing}`);
    button.setAttribute("aria-pressed", String(number === chosen));
    button.addEventListener("click", () => choose(number));
    item.append(button);
    return item;
  });
  find(".ic-list").replaceChildren(...items);
};

const draw = () => {
  root.dataset.empty = String(!state.image);
  svg.dataset.tool = tool;
  stage.style.aspectRatio = state.image ? `${state.width} / ${state.height}` : "";
  svg.setAttribute("viewBox", `0 0 ${state.width || 1} ${state.height || 1}`);
  find(".ic-image").setAttribute("width", state.width);
  find(".ic-image").setAttribute("height", state.height);
  find(".ic-strokes").replaceChildren();
  state.strokes.forEach((stroke, number) => drawStroke(stroke, number, find(".ic-strokes")));
  all("[data-tool]").filter((b) => b !== svg).forEach((b) => {
    b.setAttribute("role", "radio");
    b.setAttribute("aria-checked", String(b.dataset.tool === tool));
    b.disabled = !state.image;
  });
  const able = { undo: done.length, redo: undone.length, copy: chosen >= 0, remove: chosen >= 0, clear: state.strokes.length };
  Object.assign(able, { border: state.image, play: state.strokes.length, estimate: state.strokes.length });
  Object.entries(able).forEach(([name, value]) => { find(`[data-do="${name}"]`).disabled = !value; });
  const stroke = state.strokes[chosen];
  find(".ic-selected").disabled = !stroke;
  const shown = stroke || { kind: "object", speed: "steady", start: 0, end: 1 };
  all("[data-field]").forEach((field) => {
    const value = shown[field.dataset.field];
    field.value = typeof value === "number" ? Math.round(value * 100) : value;
  });
  all("[data-of]").forEach((output) => { output.textContent = `${Math.round(shown[output.dataset.of] * 100)} %`; });
  find('option[value="drawn"]').disabled = !shown.times;
  find(".ic-mode").textContent = mode() && `moves ${{ object: "objects", camera: "the camera", both: "objects and camera" }[mode()]}`;
  find(".ic-move").disabled = !state.image;
  drawList();
  drawMoment();
};

const choose = (number, part = -1) => {
  [chosen, point] = [number, part];
  draw();
};

/** End a stroke that clicks were appended to; one of a single point becomes a pin. */
const finish = () => {
  const stroke = state.strokes[chosen];
  if (open && stroke && stroke.points.length === 1) stroke.kind = stroke.kind === "object" ? "pin" : stroke.kind;
  if (open) [open, chosen] = [false, -1];
  changed();
};

const add = (kind, points, times) => {
  state.strokes.push({ kind, points, start: 0, end: 1, speed: times ? "drawn" : "steady", ...(times && { times }) });
  chosen = state.strokes.length - 1;
};

/** Where a pointer is, in pixels of the picture. */
const place = (event) => {
  const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  return [Math.round((at.x - 0.5) * 100) / 100, Math.round((at.y - 0.5) * 100) / 100];
};

const far = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);

const pressed = (event) => {
  if (!state.image || event.button > 0) return;
  stop();
  moment = 0;
  stage.focus({ preventScroll: true });
  svg.setPointerCapture(event.pointerId);
  event.preventDefault();
  const at = place(event);
  const { point: handle, hit } = event.target.dataset;
  if (handle !== undefined) {
    remember();
    point = Number(handle);
    drag = { what: "point", from: at, moved: false };
  } else if (tool === "select") {
    [chosen, point] = [hit === undefined ? -1 : Number(hit), -1];
    if (hit !== undefined) remember();
    drag = hit === undefined ? null : { what: "stroke", from: at, moved: false };
  } else {
    drag = { what: "path", path: [at], stamps: [event.timeStamp] };
  }
  draw();
};

const moved = (event) => {
  if (!drag) return;
  const at = place(event);
  if (drag.what === "path") {
    if (far(at, drag.path.at(-1)) < 1.5 * unit()) return;
    drag.path.push(at);
    drag.stamps.push(event.timeStamp);
    draw();
    if (tool !== "pin") make("polyline", { class: "ic-path", points: drag.path.join(" "), stroke: COLOURS[tool], "stroke-width": 3 * unit() }, find(".ic-marks"));
    return;
  }
  const [dx, dy] = [at[0] - drag.from[0], at[1] - drag.from[1]];
  drag.moved = drag.moved || Math.hypot(dx, dy) > 2 * unit();
  if (!drag.moved) return;
  drag.from = at;
  const { points } = state.strokes[chosen];
  points.forEach((p, i) => { if (drag.what === "stroke" || i === point) points[i] = [p[0] + dx, p[1] + dy]; });
  estimate = [];
  draw();
};

const released = () => {
  const ended = drag;
  drag = null;
  if (!ended) return;
  if (ended.what !== "path") {
    if (ended.moved) changed();
    else done.pop();
    draw();
    return;
  }
  remember();
  const { path, stamps } = ended;
  const start = path[0];
  if (tool === "pin") {
    add("pin", [start]);
  } else if (Math.max(...path.map((p) => far(p, start))) < 5 * unit()) {
    if (open && state.strokes[chosen]) {
      const stroke = state.strokes[chosen];
      delete stroke.times;
      stroke.points.push(start);
      stroke.speed = stroke.speed === "drawn" ? "steady" : stroke.speed;
    } else {
      add(tool, [start]);
      open = true;
    }
    say("Click to add points. Enter or a tool of the first row ends the stroke.");
  } else {
    const kept = keptPoints(path, 2.5 * unit());
    const span = Math.max(1, stamps.at(-1) - stamps[0]);
    const times = kept.map((i) => (stamps[i] - stamps[0]) / span);
    const rising = times.every((t, i) => !i || t > times[i - 1]);
    add(tool, kept.map((i) => path[i]), rising ? times : undefined);
    state.strokes[chosen].speed = "steady";
    open = false;
    say("Drag its points to change the stroke. Speed and timing are below the picture.");
  }
  changed();
};

/** A double click on a stroke puts a point there, between the two that are nearest along it. */
const insert = (event) => {
  const number = Number(event.target.dataset.hit ?? -1);
  const stroke = state.strokes[number];
  if (!stroke || stroke.kind === "pin") return;
  remember();
  const at = place(event);
  const cost = (i) => far(stroke.points[i], at) + far(stroke.points[i + 1], at) - far(stroke.points[i], stroke.points[i + 1]);
  let best = 0;
  for (let i = 1; i < stroke.points.length - 1; i += 1) if (cost(i) < cost(best)) best = i;
  stroke.points.splice(best + 1, 0, at);
  delete stroke.times;
  [chosen, point] = [number, best + 1];
  changed();
};

const remove = () => {
  const stroke = state.strokes[chosen];
  if (!stroke) return;
  remember();
  if (point >= 0 && stroke.points.length > 1) {
    stroke.points.splice(point, 1);
    delete stroke.times;
    point = -1;
  } else {
    state.strokes.splice(chosen, 1);
    [chosen, open] = [-1, false];
  }
  changed();
};

const copy = () => {
  const stroke = state.strokes[chosen];
  if (!stroke) return;
  remember();
  const twin = JSON.parse(JSON.stringify(stroke));
  twin.points = twin.points.map(([x, y]) => [x + 14 * unit(), y + 14 * unit()]);
  state.strokes.push(twin);
  [chosen, point] = [state.strokes.length - 1, -1];
  changed();
};

const lockBorder = () => {
  remember();
  const inset = 0.04 * Math.min(state.width, state.height);
  const [right, bottom] = [state.width - 1 - inset, state.height - 1 - inset];
  const [mx, my] = [(state.width - 1) / 2, (state.height - 1) / 2];
  const places = [[inset, inset], [mx, inset], [right, inset], [right, my], [right, bottom], [mx, bottom], [inset, bottom], [inset, my]];
  places.forEach((at) => add("pin", [at]));
  chosen = -1;
  say("Eight pins hold the border.");
  changed();
};

const clear = () => {
  remember();
  state.strokes = [];
  [chosen, point, open] = [-1, -1, false];
  changed();
};

/** The strokes of a named camera move take the place of all camera strokes. */
const moveCamera = async () => {
  const move = find(".ic-move").value;
  const share = Number(find(".ic-amount").value) / 100;
  find(".ic-amount-of").textContent = `${Math.round(share * 100)} %`;
  if (!state.image) return;
  const found = move ? await server.camera_move(JSON.stringify({ move, share, width: state.width, height: state.height })) : [];
  remember();
  state.strokes = state.strokes.filter((s) => s.kind !== "camera");
  found.forEach((points) => add("camera", points));
  chosen = -1;
  changed();
};

const stop = () => {
  cancelAnimationFrame(playing);
  playing = 0;
  find('[data-do="play"]').textContent = "▶";
};

const play = () => {
  if (playing) { stop(); return; }
  const began = performance.now() - moment * PLAY_MS;
  const tick = (now) => {
    moment = Math.max(0, Math.min(1, ((now - began) % (PLAY_MS * 1.15)) / PLAY_MS));
    playing = requestAnimationFrame(tick);
    drawMoment();
  };
  playing = requestAnimationFrame(tick);
  find('[data-do="play"]').textContent = "❚❚";
};

const showEstimate = async () => {
  say("Warping the picture…");
  const found = await server.estimate_frames(JSON.stringify({ image: state.image, file: file() }));
  if (found.error) { say(found.error, true); return; }
  estimate = found.frames;
  say("This is an estimate without the model: it moves the picture's own pixels.");
  moment = 0;
  if (!playing) play();
};

/** Take a picture: as it is if it is a PNG or JPEG of a fair size, else scaled and as PNG. */
const takePicture = (blob) => {
  if (!blob || !blob.type.startsWith("image/")) { say("That is not a picture. PNG, JPEG and WebP can be used.", true); return; }
  const reader = new FileReader();
  reader.onload = () => {
    const picture = new Image();
    picture.onerror = () => say("That picture cannot be read. PNG, JPEG and WebP can be used.", true);
    picture.onload = () => {
      const scale = Math.min(1, MAX_SIDE / Math.max(picture.naturalWidth, picture.naturalHeight));
      const [width, height] = [picture.naturalWidth, picture.naturalHeight].map((side) => Math.max(1, Math.round(side * scale)));
      let image = reader.result;
      if (scale < 1 || !/^data:image\/(png|jpeg);/.test(image)) {
        const canvas = document.createElement("canvas");
        Object.assign(canvas, { width, height });
        canvas.getContext("2d").drawImage(picture, 0, 0, width, height);
        image = canvas.toDataURL("image/png");
      }
      const [sx, sy] = [width / (state.width || width), height / (state.height || height)];
      state.strokes.forEach((s) => { s.points = s.points.map(([x, y]) => [(x + 0.5) * sx - 0.5, (y + 0.5) * sy - 0.5]); });
      Object.assign(state, { image, width, height });
      say("Drag on the picture to draw a stroke, or click point by point.");
      changed();
    };
    picture.src = reader.result;
  };
  reader.readAsDataURL(blob);
};

const ACTIONS = { undo: () => restore(done, undone), redo: () => restore(undone, done), copy, remove, border: lockBorder, clear, play };
Object.assign(ACTIONS, { choose: () => find(".ic-file").click(), estimate: showEstimate });

const setTool = (name) => {
  if (open) finish();
  tool = name;
  draw();
};

const nudge = (dx, dy) => {
  const stroke = state.strokes[chosen];
  if (!stroke) return;
  remember();
  stroke.points = stroke.points.map((p, i) => (point < 0 || i === point ? [p[0] + dx, p[1] + dy] : p));
  changed();
};

/** Strokes by keyboard: N begins one in the middle, A appends a point, the arrow keys move what is selected. */
const keyed = (event) => {
  const step = (event.shiftKey ? 10 : 1) * Math.max(1, unit());
  const stroke = state.strokes[chosen];
  const keys = {
    ArrowLeft: () => nudge(-step, 0), ArrowRight: () => nudge(step, 0), ArrowUp: () => nudge(0, -step), ArrowDown: () => nudge(0, step),
    Delete: remove, Backspace: remove, Enter: finish, Escape: finish, " ": play,
    o: () => setTool("object"), c: () => setTool("camera"), p: () => setTool("pin"), s: () => setTool("select"),
    n: () => { remember(); add(tool === "select" ? "object" : tool, [[state.width / 2, state.height / 2]]); point = 0; changed(); },
    a: () => { if (stroke) { remember(); const [x, y] = stroke.points.at(-1); stroke.kind = stroke.kind === "pin" ? "object" : stroke.kind; delete stroke.times; point = stroke.points.push([x + 20 * unit(), y]) - 1; changed(); } },
  };
  const combined = { z: event.shiftKey ? ACTIONS.redo : ACTIONS.undo, y: ACTIONS.redo, d: copy };
  const action = (event.ctrlKey || event.metaKey ? combined : keys)[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action || !state.image) return;
  event.preventDefault();
  action();
};

const setField = (event) => {
  const stroke = state.strokes[chosen];
  const { field } = event.target.dataset;
  if (!stroke || !field) return;
  remember();
  stroke[field] = event.target.type === "range" ? Number(event.target.value) / 100 : event.target.value;
  if (field === "start") stroke.end = Math.max(stroke.end, stroke.start + 0.05);
  if (field === "end") stroke.start = Math.min(stroke.start, stroke.end - 0.05);
  if (field === "kind" && stroke.kind === "pin") stroke.points = stroke.points.slice(0, 1);
  changed();
};

/** Take over what the page says: another picture, strokes of a file, an entry of the history. */
const receive = () => {
  if (!props.value || props.value === sent) return;
  sent = props.value;
  try {
    const found = JSON.parse(props.value);
    if (state.strokes.length) remember();
    state = { ...blank(), image: found.image, width: found.width, height: found.height, strokes: found.strokes };
  } catch {
    say("The page sent something that is no drawing.", true);
    return;
  }
  [chosen, point, open, moment, estimate] = [-1, -1, false, 0, []];
  stop();
  changed();
};

svg.addEventListener("pointerdown", pressed);
svg.addEventListener("pointermove", moved);
svg.addEventListener("pointerup", released);
svg.addEventListener("pointercancel", () => { drag = null; draw(); });
svg.addEventListener("dblclick", insert);
stage.addEventListener("keydown", keyed);
all("[data-tool]").filter((b) => b !== svg).forEach((b) => b.addEventListener("click", () => setTool(b.dataset.tool)));
all("[data-do]").forEach((b) => b.addEventListener("click", () => ACTIONS[b.dataset.do]()));
all("[data-field]").forEach((field) => field.addEventListener("input", setField));
find(".ic-move").addEventListener("change", moveCamera);
find(".ic-amount").addEventListener("change", () => find(".ic-move").value && moveCamera());
find(".ic-amount").addEventListener("input", (e) => { find(".ic-amount-of").textContent = `${e.target.value} %`; });
find(".ic-time").addEventListener("input", (event) => { stop(); moment = Number(event.target.value) / 1000; drawMoment(); });
find(".ic-file").addEventListener("change", (event) => { takePicture(event.target.files[0]); event.target.value = ""; });
stage.addEventListener("dragover", (event) => { event.preventDefault(); stage.classList.add("ic-over"); });
stage.addEventListener("dragleave", () => stage.classList.remove("ic-over"));
stage.addEventListener("drop", (event) => { event.preventDefault(); stage.classList.remove("ic-over"); takePicture(event.dataTransfer.files[0]); });
document.addEventListener("paste", (event) => { const item = [...event.clipboardData.items].find((i) => i.type.startsWith("image/")); if (item) takePicture(item.getAsFile()); });
new ResizeObserver(() => draw()).observe(stage);
JSON.parse(props.moves || "[]").forEach((name) => find(".ic-move").append(new Option(name.replaceAll("_", " "), name)));
watch("value", receive);
receive();
draw();
