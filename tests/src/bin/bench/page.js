// Uses the page of a timeline as a hand would, a move a frame, through the page's own handlers.
// Answers with the times between frames, in milliseconds, or with what went wrong.
const answer = arguments[arguments.length - 1];
const canvas = document.getElementById("chart");
const box = canvas.getBoundingClientRect();
const middle = { x: box.left + box.width * 0.6, y: box.top + box.height * 0.6 };

const wheel = (deltaY, shiftKey = false) => canvas.dispatchEvent(new WheelEvent("wheel", {
  deltaY, shiftKey, clientX: middle.x, clientY: middle.y, bubbles: true, cancelable: true,
}));
const pointer = (type, x, y) => canvas.dispatchEvent(new PointerEvent(type, {
  clientX: x, clientY: y, pointerId: 1, isPrimary: true, buttons: 1, bubbles: true,
}));
const key = (name) => canvas.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true, cancelable: true }));

// Of a mouse that is not there.
canvas.setPointerCapture = () => {};

// Each is done so many times, and is told for the how manieth.
const moves = [
  [10, () => wheel(100, true)], // all of it: nowhere to pan
  [40, () => wheel(-150)], // from everything to one poll
  [20, () => wheel(100, true)],
  [40, () => wheel(150)], // and back
  [10, () => wheel(-150)],
  [30, (nth) => wheel(nth % 2 ? 300 : 200, true)], // along
  [1, () => pointer("pointerdown", middle.x, middle.y)],
  [30, (nth) => pointer("pointermove", middle.x - nth * 5, middle.y - nth * 3)],
  [1, () => pointer("pointerup", middle.x, middle.y)],
  [20, () => key("ArrowDown")],
  [20, (nth) => pointer("pointermove", middle.x - nth * 4, middle.y - nth * 2)],
  [20, () => key("n")], // from chain to chain
  [1, () => key("f")],
  [20, () => key("j")],
  [1, () => key("Escape")],
  [1, () => key("0")],
];
const script = moves.flatMap(([times, move]) => Array.from({ length: times }, (_, nth) => () => move(nth)));

window.addEventListener("error", (event) => answer(event.message));
const between = [];
let before = null;
const frame = () => {
  const now = performance.now();
  if (before !== null) between.push(now - before);
  before = now;
  const move = script.shift();
  if (!move) return answer(between);
  requestAnimationFrame(frame);
  move();
};
requestAnimationFrame(frame);
