// Takes over HTML that was made in Python, node by node, so that focus, selections, what is ticked and what is unfolded
// stay. Stands before page.js in the page's script, and before clickable.js in the widget's.
"use strict";

const keyOf = (node) => (node.nodeType === 1 ? node.id || node.dataset.key || "" : "");

// Makes one node what another is; ``isHeld`` says of an element that it is to stay as the user has made it.
function morph(old, next, isHeld) {
  if (old.nodeType !== 1) {
    if (old.data !== next.data) old.data = next.data;
    return;
  }
  if (isHeld(old)) return;
  const isKept = (name) => name === "open" && old.nodeName === "DETAILS";
  for (const { name } of [...old.attributes]) {
    if (!next.hasAttribute(name) && !isKept(name)) old.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (old.getAttribute(name) !== value && !isKept(name)) old.setAttribute(name, value);
  }
  morphChildren(old, next, isHeld);
}

function morphChildren(old, next, isHeld) {
  const isSame = (a, b) => a.nodeName === b.nodeName && keyOf(a) === keyOf(b);
  const keyed = new Map([...old.children].filter(keyOf).map((child) => [keyOf(child), child]));
  const wanted = new Set([...next.children].map(keyOf));
  let at = old.firstChild;
  const drop = () => { const gone = at; at = at.nextSibling; gone.remove(); };
  for (const child of [...next.childNodes]) {
    while (at && keyOf(at) && !wanted.has(keyOf(at))) drop();
    const match = keyOf(child) ? keyed.get(keyOf(child)) : at;
    if (match && isSame(match, child)) {
      if (match === at) at = at.nextSibling; else old.insertBefore(match, at);
      morph(match, child, isHeld);
    } else {
      old.insertBefore(child, at);
    }
  }
  while (at) drop();
}
