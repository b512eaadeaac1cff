// Shows HTML that was made in Python, and sends back what is pressed in it. What changes is taken over node by node, so
// that focus, boxes that are ticked, selections and what is unfolded stay. All words and decisions are Python's.

const keyOf = (node) => (node.nodeType === 1 ? node.dataset.key || "" : "");
const isSame = (a, b) => a.nodeName === b.nodeName && keyOf(a) === keyOf(b);

function morph(old, next) {
  if (old.nodeType !== 1) {
    if (old.data !== next.data) old.data = next.data;
    return;
  }
  const isKept = (name) => name === "open" && old.nodeName === "DETAILS";
  for (const { name } of [...old.attributes]) {
    if (!next.hasAttribute(name) && !isKept(name)) old.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (old.getAttribute(name) !== value && !isKept(name)) old.setAttribute(name, value);
  }
  morphChildren(old, next);
}

function morphChildren(old, next) {
  const keyed = new Map([...old.children].filter(keyOf).map((child) => [keyOf(child), child]));
  const wanted = new Set([...next.children].map(keyOf));
  let at = old.firstChild;
  const drop = () => { const gone = at; at = at.nextSibling; gone.remove(); };
  for (const child of [...next.childNodes]) {
    while (at && keyOf(at) && !wanted.has(keyOf(at))) drop();
    const match = keyOf(child) ? keyed.get(keyOf(child)) : at;
    if (match && isSame(match, child)) {
      if (match === at) at = at.nextSibling; else old.insertBefore(match, at);
      morph(match, child);
    } else {
      old.insertBefore(child, at);
    }
  }
  while (at) drop();
}

function render({ model, el }) {
  const root = document.createElement("div");
  root.setAttribute("data-lm-suppress-shortcuts", "true");  // else JupyterLab takes Enter and Space for itself
  const boxes = () => [...root.querySelectorAll("input[data-attempt]")];
  const taskOf = (control) => `${control.closest("tr").dataset.key}:${control.dataset.attempt}`;

  function show() {
    const next = document.createElement("template");
    next.innerHTML = model.get("value");  // every text in it was escaped in Python
    morphChildren(root, next.content);
    showChosen();
  }

  function showChosen() {
    const all = root.querySelector("input[data-all]");
    if (!all) return;
    const chosen = boxes().filter((box) => box.checked).length;
    all.checked = chosen > 0 && chosen === boxes().length;
    all.indeterminate = chosen > 0 && !all.checked;
  }

  root.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-action]");
    if (!button || button.disabled) return;
    const { action, attempt, group, until } = button.dataset;
    const chosen = action.endsWith("-selected") ? boxes().filter((box) => box.checked) : [];
    const tasks = attempt === undefined ? chosen.map(taskOf) : [taskOf(button)];
    for (const box of chosen) box.checked = false;
    model.send({ action, tasks, group, until });
    showChosen();
  });
  root.addEventListener("change", (event) => {
    if (event.target.dataset.all !== undefined) for (const box of boxes()) box.checked = event.target.checked;
    showChosen();
  });
  model.on("change:value", show);
  el.append(root);
  show();
  return () => model.off("change:value", show);
}

export default { render };
