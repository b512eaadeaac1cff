// A widget that shows HTML that was made in Python, and sends back what is pressed in it; morph.js stands before it. All
// words and decisions are Python's.

function render({ model, el }) {
  const root = document.createElement("div");
  root.setAttribute("data-lm-suppress-shortcuts", "true");  // else JupyterLab takes Enter and Space for itself
  const boxes = () => [...root.querySelectorAll("input[data-attempt]")];
  const taskOf = (control) => `${control.closest("tr").dataset.key}:${control.dataset.attempt}`;

  function show() {
    const next = document.createElement("template");
    next.innerHTML = model.get("value");  // every text in it was escaped in Python
    morphChildren(root, next.content, () => false);
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
