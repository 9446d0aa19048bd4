"use strict";
// The gallery: a group's images sorted and filtered, drawn as far as they are scrolled to.
const byId = (id) => document.getElementById(id);
const AT_ONCE = 120;
let group = null, shown = [], drawn = 0, open = -1;

const value = (id) => (byId(id) ? byId(id).value : "");
const make = (tag, text, kind) => {
  const found = document.createElement(tag);
  if (text !== undefined) found.textContent = text;
  if (kind) found.className = kind;
  return found;
};

function picture(pixels, alt) {
  const image = make("img");
  image.src = pixels.src;
  image.alt = alt;
  image.decoding = "async";
  if (!pixels.full) image.className = "sharp";
  return image;
}

function told(one) {
  const label = one.shows === null ? "" : one.shows ? ", its label is seen" : ", its label is not seen";
  return `${one.kind}, score ${one.score}${label}`;
}

function choose() {
  const kind = value("kind"), shows = value("shows"), least = parseFloat(value("least"));
  const sort = value("sort"), down = sort.startsWith("-"), key = sort.replace("-", "");
  shown = group.made.filter((one) =>
    (!kind || one.kind === kind) &&
    (!shows || one.shows === (shows === "yes")) &&
    (Number.isNaN(least) || one.score >= least));
  shown.sort((a, b) => (down ? b[key] - a[key] : a[key] - b[key]) || (a.id < b.id ? -1 : 1));
  byId("count").textContent = `${shown.length.toLocaleString("en")} of ${group.made.length.toLocaleString("en")} generated images of ${group.name}`;
  byId("made").replaceChildren();
  drawn = 0;
  draw();
}

function draw() {
  const part = document.createDocumentFragment();
  for (const one of shown.slice(drawn, drawn + AT_ONCE)) {
    const tile = make("button", undefined, one.kind), at = shown.indexOf(one);
    tile.type = "button";
    tile.append(picture(one, `Generated ${group.name}: ${told(one)}`));
    tile.append(make("span", `${one.score.toFixed(3)}${one.kind === "kept" ? "" : " " + one.kind}`));
    tile.addEventListener("click", () => view(at));
    part.append(tile);
  }
  drawn = Math.min(shown.length, drawn + AT_ONCE);
  byId("made").append(part);
  byId("more").textContent = drawn < shown.length ? "scroll for more" : "";
}

function pick() {
  group = JSON.parse(byId("group-" + value("group")).textContent);
  byId("reals").textContent = `${group.shown.length.toLocaleString("en")} training images of ${group.name}`;
  byId("real").replaceChildren(...group.shown.map((id) => picture(group.real[id], `Real ${group.name}: ${id}`)));
  choose();
}

function fact(name, text) {
  if (text === "" || text === null || text === undefined) return [];
  return [make("dt", name), make("dd", String(text))];
}

function place(id, pixels, alt) {
  const image = byId(id);
  image.hidden = !pixels;
  if (!pixels) return;
  image.src = pixels.full || pixels.src;
  image.onerror = () => { image.onerror = null; image.src = pixels.src; };
  image.alt = alt;
  image.className = pixels.full ? "" : "sharp";
}

function view(at) {
  if (at < 0 || at >= shown.length) return;
  open = at;
  const one = shown[at], near = group.real[one.near];
  place("big", one, `Generated ${group.name}: ${told(one)}`);
  place("near", near, `Training image ${one.near}, similarity ${one.similarity}`);
  byId("bigwhat").textContent = `Generated, ${told(one)}`;
  byId("nearwhat").textContent = near ? `Nearest training image, similarity ${one.similarity}` : `Nearest training image: ${one.near}, not in this gallery`;
  byId("facts").replaceChildren(
    ...fact("id", one.id), ...fact("prompt", group.prompts[one.prompt]),
    ...fact("cluster", one.cluster), ...fact("adapter", group.adapters[one.adapter]),
    ...fact("seed", one.seed), ...fact("edited from", one.source), ...fact("nearest", one.near),
    ...fact("size", one.full ? "full size" : "as it is in this page"));
  byId("before").disabled = at === 0;
  byId("after").disabled = at === shown.length - 1;
  if (!byId("view").open) byId("view").showModal();
}

for (const id of ["kind", "shows", "sort"]) if (byId(id)) byId(id).addEventListener("change", choose);
byId("least").addEventListener("input", choose);
byId("group").addEventListener("change", () => { location.hash = value("group"); });
byId("size").addEventListener("input", () => {
  for (const tiles of document.querySelectorAll(".tiles")) tiles.style.setProperty("--size", value("size") + "px");
});
byId("before").addEventListener("click", () => view(open - 1));
byId("after").addEventListener("click", () => view(open + 1));
byId("view").addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") view(open - 1);
  if (event.key === "ArrowRight") view(open + 1);
});
document.querySelector(".controls").addEventListener("submit", (event) => event.preventDefault());
function hashed() {
  const asked = location.hash.slice(1);
  if (asked && byId("group-" + asked)) byId("group").value = asked;
  pick();
}
window.addEventListener("hashchange", hashed);
new IntersectionObserver((seen) => { if (seen[0].isIntersecting && drawn < shown.length) draw(); },
  { rootMargin: "600px" }).observe(byId("more"));
hashed();
