"use strict";
// The history and the filters stand in the address after the #, which browsers send to nobody.
// Addresses are relative to the page's, below whatever path a proxy offers it.

const K = 10;
const REASONS = 3;
const WAIT_MS = 120;
const at = (id) => document.getElementById(id);
const page = at("page").dataset;

let history = []; // [{id, title}], the oldest first
let similarTo = null; // {id, title}, or null for recommendations
let latest = 0; // the newest request; answers to older ones are dropped

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function button(text, unseen, onclick) {
  const words = element("span", { className: "unseen", textContent: ` ${unseen}` });
  return element("button", { type: "button", onclick }, text, words);
}

function titleOf(item) {
  const metadata = item.metadata || {};
  return metadata.title || String(item.item_id);
}

async function ask(path, body) {
  const headers = { "Content-Type": "application/json" };
  if (page.needsKey) headers["X-API-Key"] = at("key").value;
  const options = body === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(body) };
  const answer = await fetch(path, options);
  const document = await answer.json();
  if (!answer.ok) throw new Error(document.detail || answer.statusText);
  return document;
}

// What is asked for

function conditions() {
  const found = [];
  const genre = at("genre") && at("genre").value;
  if (genre) found.push({ field: page.genreField, op: "contains", value: genre });
  for (const [id, op] of [["from", "gte"], ["to", "lte"]]) {
    const year = at(id) ? parseInt(at(id).value, 10) : NaN;
    if (Number.isSafeInteger(year)) found.push({ field: "year", op, value: year });
  }
  return found;
}

function question() {
  const asked = { k: K, return: ["score", "metadata"] };
  if (!similarTo) asked.history = history.map((item) => item.id);
  const all = conditions();
  if (all.length) asked.filter = { all };
  return asked;
}

function operation() {
  if (!similarTo) return "v1/recommendations";
  return `v1/items/${encodeURIComponent(similarTo.id)}/similar`;
}

// What is shown

function showHistory() {
  const rows = history.map((item, place) => {
    const up = button("↑", `move ${item.title} up`, () => move(place, place - 1));
    const down = button("↓", `move ${item.title} down`, () => move(place, place + 1));
    up.disabled = place === 0;
    down.disabled = place === history.length - 1;
    const title = element("span", { className: "title", textContent: item.title });
    return element("li", {}, title, up, down, button("✕", `remove ${item.title}`, () => remove(place)));
  });
  at("history").replaceChildren(...rows);
  at("empty").hidden = rows.length > 0;
  at("clear").hidden = rows.length === 0;
}

function showResults(answer) {
  const rows = answer.items.map((item) => {
    const metadata = item.metadata || {};
    const score = `score ${item.score.toFixed(3)}`;
    const kinds = page.genreField && metadata[page.genreField];
    const about = kinds ? `${[kinds].flat().join(", ")} · ${score}` : score;
    const title = titleOf(item);
    return element(
      "li", {},
      element("span", { className: "rank", textContent: item.rank }),
      element("span", { className: "title" }, title, element("span", { className: "about", textContent: about })),
      button("Add", `${title} to the history`, () => add(String(item.item_id), title)),
      button("Similar", `to ${title}`, () => showSimilar({ id: String(item.item_id), title })),
      ...(answer.strategy === "model" ? [button("Why", `${title}`, (event) => showWhy(item.item_id, event.target.closest("li")))] : []),
    );
  });
  at("results").replaceChildren(...rows);
  const unknown = answer.unknown_items.length ? ` Unknown and skipped: ${answer.unknown_items.join(", ")}.` : "";
  const popular = answer.strategy === "popular" ? "The most popular items, as the history is empty or unknown. " : "";
  at("status").textContent = `${popular}${rows.length} items, ${answer.took_ms} ms.${answer.reason ? " No others are left." : ""}${unknown}`;
}

async function showWhy(id, row) {
  const told = element("span", { className: "about why" });
  told.setAttribute("role", "status");
  for (const old of row.querySelectorAll(".why")) old.remove();
  row.querySelector(".title").append(told);
  try {
    const why = await ask("v1/explanations", { history: history.map((item) => item.id), item_id: id });
    const strongest = why.influences.filter((each) => each.change < 0).sort((a, b) => a.change - b.change).slice(0, REASONS);
    const reasons = strongest.map((each) => `${each.title} (${each.score_without.toFixed(3)} without it)`);
    told.textContent = reasons.length ? `Because of ${reasons.join("; ")}` : "No single item of the history speaks for it.";
  } catch (error) {
    told.textContent = `No answer: ${error.message}`;
  }
}

function showLinks() {
  const parameters = new URLSearchParams();
  for (const item of history) parameters.append("h", item.id);
  if (similarTo) parameters.set("similar", similarTo.id);
  for (const id of ["genre", "from", "to"]) if (at(id) && at(id).value) parameters.set(id, at(id).value);
  window.history.replaceState(null, "", `#${parameters}`);
  at("link").value = location.href;
  const quoted = JSON.stringify(question()).replaceAll("'", "'\\''");
  const key = page.needsKey ? " -H \"X-API-Key: $SEGUE_KEY\"" : "";
  at("curl").value = `curl -s '${new URL(operation(), document.baseURI).href.replaceAll("'", "%27")}'${key} -H 'Content-Type: application/json' -d '${quoted}'`;
}

async function update() {
  const mine = ++latest;
  showHistory();
  showLinks();
  at("results-heading").textContent = similarTo ? `Similar to ${similarTo.title}` : "Recommendations";
  at("back").hidden = !similarTo;
  if (page.needsKey && !at("key").value) {
    at("status").textContent = "Enter the key of this service above.";
    return;
  }
  try {
    const answer = await ask(operation(), question());
    if (mine === latest) showResults(answer);
  } catch (error) {
    if (mine !== latest) return;
    at("results").replaceChildren();
    at("status").textContent = `No answer: ${error.message}`;
  }
}

// What one can do

function add(id, title) {
  history.push({ id, title });
  similarTo = null;
  update();
}

function remove(place) {
  history.splice(place, 1);
  update();
  const left = at("history").children[Math.min(place, history.length - 1)];
  (left ? left.querySelector("button:last-child") : at("search")).focus();
}

function move(from, to) {
  history.splice(to, 0, ...history.splice(from, 1));
  update();
  const buttons = at("history").children[to].querySelectorAll("button");
  const pressed = buttons[to < from ? 0 : 1];
  (pressed.disabled ? buttons[to < from ? 1 : 0] : pressed).focus();
}

function showSimilar(item) {
  similarTo = item;
  update();
  at("results-heading").focus();
}

async function search() {
  const query = at("search").value.trim();
  if (!query) return at("found").replaceChildren();
  try {
    const { items } = await ask(`v1/items?limit=8&query=${encodeURIComponent(query)}`);
    if (query !== at("search").value.trim()) return undefined;
    const rows = items.map((item) => {
      const title = titleOf(item);
      const choose = () => {
        at("search").value = "";
        at("found").replaceChildren();
        add(String(item.item_id), title);
        at("search").focus();
      };
      return element("li", {}, element("button", { type: "button", onclick: choose, textContent: title }));
    });
    at("found").replaceChildren(...(rows.length ? rows : [element("li", { className: "hint", textContent: "Nothing found." })]));
  } catch (error) {
    at("found").replaceChildren(element("li", { className: "hint", textContent: `No answer: ${error.message}` }));
  }
  return undefined;
}

function soon(action) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, WAIT_MS);
  };
}

async function titled(id) {
  try {
    return { id, title: titleOf(await ask(`v1/items/${encodeURIComponent(id)}`)) };
  } catch {
    return { id, title: `${id} (unknown)` };
  }
}

async function start() {
  if (page.needsKey) at("key").value = sessionStorage.getItem("segue-key") || "";
  const given = new URLSearchParams(location.hash.slice(1));
  for (const id of ["genre", "from", "to"]) if (at(id)) at(id).value = given.get(id) || "";
  history = await Promise.all(given.getAll("h").map(titled));
  similarTo = given.get("similar") ? await titled(given.get("similar")) : null;
  update();
}

at("search").addEventListener("input", soon(search));
at("search").addEventListener("keydown", (event) => {
  const first = at("found").querySelector("button");
  if (first && event.key === "Enter") first.click();
  if (first && event.key === "ArrowDown") first.focus();
});
at("found").addEventListener("keydown", (event) => {
  const row = event.target.closest("li");
  const next = { ArrowDown: row.nextElementSibling, ArrowUp: row.previousElementSibling }[event.key];
  if (next) next.querySelector("button").focus();
  else if (event.key === "ArrowUp" || event.key === "Escape") at("search").focus();
});
for (const id of ["genre", "from", "to"]) if (at(id)) at(id).addEventListener("input", soon(update));
at("clear").addEventListener("click", () => {
  history = [];
  update();
  at("search").focus();
});
at("back").addEventListener("click", () => {
  similarTo = null;
  update();
  at("results-heading").focus();
});
for (const copier of document.querySelectorAll("[data-copies]")) {
  copier.addEventListener("click", async () => {
    const source = at(copier.dataset.copies);
    source.select();
    try {
      await navigator.clipboard.writeText(source.value);
      at("copied").textContent = "Copied.";
    } catch {
      at("copied").textContent = "Selected; press Ctrl-C to copy.";
    }
  });
}
if (page.needsKey) {
  at("key").addEventListener("change", () => {
    sessionStorage.setItem("segue-key", at("key").value);
    start();
  });
}
window.addEventListener("hashchange", start);
start();
