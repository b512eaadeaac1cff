// Keeps the page as the server has it: fetches the page that it is on, and takes over what has changed, node by node,
// so that focus, selections and what is unfolded stay (morph.js, which stands before this). Without this script the page is
// whole, and has a link instead.

(() => {
  const FASTEST = 1000, SLOWEST = 5000, SLOWEST_IN_TROUBLE = 30000, PATIENCE = 20000;
  const state = document.getElementById("state");
  const touched = new WeakSet();
  let etag = "", pause = FASTEST, failures = 0, fresh = Date.now(), isOver = false, isSending = false;
  let timer = 0, current = null;

  function say(text, isLate) {
    if (state.textContent !== text) state.textContent = text;
    state.classList.toggle("late", isLate);
  }

  // --- taking over

  // What the user is filling in stays as it is.
  const isHeld = (node) => node.dataset.keep !== undefined && (touched.has(node) || node.contains(document.activeElement));

  function show(page) {
    const main = page.getElementById("main"), old = document.getElementById("main");
    if (!main) throw new Error("that is not the page");
    const focused = document.activeElement;
    const wasInside = old.contains(focused);
    const before = old.dataset.watched;
    document.title = page.title;
    morph(old, main, isHeld);
    if (focused && focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
    if (wasInside && !focused.isConnected) old.focus({ preventScroll: true });  // its row has gone
    countSelected();
    if (before === "running" && old.dataset.watched === "ended") announce();
  }

  // --- several tasks

  const boxes = () => [...document.querySelectorAll('#main input[name="task"]')];

  function countSelected() {
    const all = document.getElementById("select-all"), chosen = boxes().filter((box) => box.checked).length;
    if (!all) return;
    all.checked = chosen > 0 && chosen === boxes().length;
    all.indeterminate = chosen > 0 && !all.checked;
  }

  document.addEventListener("change", (event) => {
    if (event.target.id === "select-all") for (const box of boxes()) box.checked = event.target.checked;
    countSelected();
  });

  // --- being told of the end: the title says it in all cases, a notification only to those who have asked for it

  const wish = `oq-tell ${location.pathname}`;

  function showWish() {
    document.documentElement.classList.toggle("tells", sessionStorage.getItem(wish) === "yes");
  }

  function announce() {
    if (sessionStorage.getItem(wish) !== "yes") return;
    sessionStorage.removeItem(wish);
    showWish();
    if (self.Notification?.permission === "granted") new Notification(document.title, { tag: location.pathname });
  }

  document.addEventListener("click", async (event) => {
    if (!event.target.closest("[data-tell]")) return;
    const allowed = self.Notification ? await Notification.requestPermission() : "denied";
    if (allowed === "granted") sessionStorage.setItem(wish, "yes");
    else say("This browser shows no notifications here: the title of the page will say it.", false);
    showWish();
  });

  // --- asking

  async function ask(address, options) {
    clearTimeout(timer);
    current?.abort();
    const mine = current = new AbortController();
    const patience = setTimeout(() => mine.abort(), PATIENCE);
    try {
      const answer = await fetch(address, { cache: "no-store", signal: mine.signal, ...options });
      if (answer.status === 401 || answer.status === 403) {
        isOver = true;
        say("Not refreshed any more: the page was started anew. Open its new address.", true);
        return;
      }
      if (answer.status !== 304) {
        const text = await answer.text();
        if (mine !== current) return;
        show(new DOMParser().parseFromString(text, "text/html"));
      }
      pause = answer.status === 200 ? FASTEST : Math.min(pause * 1.5, SLOWEST);
      etag = answer.headers.get("ETag") || "";
      failures = 0;
      fresh = Date.now();
      say("Live", false);
    } catch (error) {
      if (mine !== current) return;
      failures += 1;
      pause = Math.min(FASTEST * 2 ** failures, SLOWEST_IN_TROUBLE);
      const since = new Date(fresh).toLocaleTimeString();
      say(`Not refreshed since ${since}: the server of this page does not answer. It is tried again.`, true);
    } finally {
      clearTimeout(patience);
      if (mine === current) plan();
    }
  }

  function plan() {
    clearTimeout(timer);
    const isWatched = document.getElementById("main").dataset.watched === "running";
    if (isOver || (document.hidden && !isWatched)) return;
    timer = setTimeout(refresh, document.hidden ? Math.max(pause, SLOWEST) : pause);
  }

  function refresh() {
    ask(location.href, etag ? { headers: { "If-None-Match": etag } } : {});
  }

  document.addEventListener("submit", (event) => {
    const form = event.target, by = event.submitter;
    if (form.method !== "post") return;
    event.preventDefault();
    if (isSending) return;  // buttons are not disabled meanwhile: the one that was pressed would lose the focus
    isSending = true;
    say("Sent …", false);
    const body = new URLSearchParams(new FormData(form, by));
    const address = by?.hasAttribute("formaction") ? by.formAction : form.action;
    ask(address, { method: "POST", body }).finally(() => { isSending = false; });
    form.reset();
  });

  document.addEventListener("input", (event) => {
    const kept = event.target.closest("[data-keep]");
    if (kept) touched.add(kept);
  });

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && !isOver) refresh();
  });

  document.documentElement.classList.add("is-live");
  if (document.getElementById("main").dataset.watched === "ended") sessionStorage.removeItem(wish);
  showWish();
  say("Live", false);
  plan();
})();
