// The script of every page: it reloads the content when something has changed, keeps times up to date, draws the
// charts, and handles a few keys. Every page works without it.
"use strict";

(() => {
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

  function durationText(seconds) {
    if (seconds < 10) return `${seconds.toFixed(1)} s`;
    const at = units.findIndex(([size]) => seconds >= size);
    const [size, name] = units[at];
    const below = units[at + 1];
    const rest = below ? Math.floor((seconds % size) / below[0]) : 0;
    return `${Math.floor(seconds / size)} ${name}${rest ? ` ${rest} ${below[1]}` : ""}`;
  }

  function updateTimes() {
    for (const each of document.querySelectorAll("time")) {
      const at = new Date(each.dateTime);
      if ("ago" in each.dataset) {
        const gap = (Date.now() - at) / 1000;
        each.textContent = gap >= 0 ? `${durationText(gap)} ago` : `in ${durationText(-gap)}`;
      } else if (!each.dataset.local) {
        each.dataset.local = "1";
        const ms = { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23" };
        each.textContent = "short" in each.dataset
          ? at.toLocaleTimeString([], ms)
          : at.toLocaleString([], { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });
      }
    }
  }

  // live pages: one event stream; while there is none, a reload every five seconds

  let isLoading = false;
  let isDue = false;

  // A reload would take away what the reader has selected or typed, or shows it to nobody.
  function mustWait() {
    const chosen = document.querySelector("input[name=id]:checked, input[name=all]:checked");
    const typing = document.activeElement && document.activeElement.closest("#page input:not([type=checkbox]), #page select, #page textarea");
    return document.hidden || chosen || typing;
  }

  async function refresh() {
    if (isLoading || mustWait()) { isDue = true; return; }
    isLoading = true;
    isDue = false;
    try {
      const url = location.pathname + location.search.replace(/([?&])(notice|n|id)=[^&]*/g, "$1").replace(/[?&]+$/, "");
      await htmx.ajax("GET", url, { target: "#page", select: "#page", swap: "outerMorph", headers: { Accept: "text/html" } });
    } finally {
      isLoading = false;
    }
    if (isDue && !mustWait()) refresh();  // something has changed while it was loading
  }

  // The reader may have begun to select or to type while the page was loading.
  function keepPage(event) {
    if (!isLoading || !mustWait()) return;
    isDue = true;
    event.preventDefault();
  }

  // A hidden tab holds no stream: a browser has six connections to one server for all of its tabs together.
  function listen() {
    const address = document.body.dataset.live;
    if (!address) return;
    let stream = null;
    let polling = 0;
    const poll = () => { if (!polling) polling = setInterval(refresh, 5000); };
    const stopPolling = () => { clearInterval(polling); polling = 0; };
    const open = () => {
      if (stream || document.hidden) return;
      if (!window.EventSource) { poll(); return; }
      stream = new EventSource(address);
      stream.addEventListener("changed", refresh);
      stream.onopen = stopPolling;
      stream.onerror = poll;
    };
    const close = () => { stream?.close(); stream = null; stopPolling(); };
    addEventListener("pagehide", close);
    addEventListener("pageshow", (event) => { if (event.persisted) { open(); refresh(); } });
    document.addEventListener("visibilitychange", () => { if (document.hidden) close(); else { open(); refresh(); } });
    document.addEventListener("change", () => { if (isDue) refresh(); });
    document.addEventListener("focusout", () => setTimeout(() => { if (isDue) refresh(); }, 0));
    open();
  }

  // charts

  const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  const length = (ms) => {
    if (ms < 1000) return `${ms} ms`;
    const [size, name] = units.find(([least]) => ms / 1000 >= least);
    return `${+(ms / 1000 / size).toFixed(1)} ${name}`;
  };
  let drawn = [];
  let drawnData = "";

  function draw() {
    const place = document.getElementById("charts");
    const data = document.getElementById("history")?.dataset.history;
    if (!place || !data || !window.uPlot) return;
    for (const each of drawn) each.destroy();
    drawn = [];
    drawnData = data;
    const history = JSON.parse(data);
    const minutes = history.completed.map((_, at) => history.from + 60 * at);
    const axis = { stroke: ink("--soft"), grid: { stroke: ink("--line"), width: 1 }, ticks: { stroke: ink("--line"), width: 1 } };
    const line = (label, name, show = false, dash = undefined) => (
      { label, stroke: ink(name), width: 1.5, points: { show, size: 4, fill: ink(name) }, dash });
    const plot = (kind, series, data, values) => {
      const box = place.querySelector(`[data-plot=${kind}]`);
      if (!data.some((each) => each.some((value) => value !== null))) return;
      box.replaceChildren();
      drawn.push(new uPlot({
        width: Math.max(box.clientWidth, 200), height: 140, series: [{}, ...series], legend: { show: false },
        axes: [{ ...axis, values: (_, at) => at.map(clock) }, { ...axis, size: 70, ...(values && { values }) }],
        scales: { y: { range: (_, low, high) => [0, Math.max(high || 0, 1)] } }, cursor: { drag: { x: false, y: false } },
      }, [minutes, ...data], box));
    };
    plot("jobs",
      [line("completed", "--completed"), line("failed", "--failed"), line("failed attempts", "--failed", false, [4, 3])],
      [history.completed, history.failed, history.attempts]);
    plot("times", [line("waited", "--soft", true, [4, 3]), line("ran", "--ink", true)], [history.wait, history.run],
      (_, at) => at.map(length));
  }

  // keys and check boxes

  function handleKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input:not([type=checkbox]), select, textarea")) return;
    if (event.key === "/") {
      event.preventDefault();
      document.querySelector("header input[type=search]").focus();
    } else if (event.key === "r") {
      document.querySelector("#page [aria-keyshortcuts=r]")?.click();
    } else if (event.key === "j" || event.key === "k") {
      const links = [...document.querySelectorAll("tbody td:first-child a, tbody td.id a")];
      const at = links.indexOf(document.activeElement);
      links[Math.min(Math.max(at + (event.key === "j" ? 1 : -1), 0), links.length - 1)]?.focus();
    } else if (event.key === "x") {
      event.target.closest("tr")?.querySelector("input[name=id]")?.click();
    }
  }

  function selectAll(event) {
    if (!event.target.matches("[data-all]")) return;
    for (const each of document.querySelectorAll("input[name=id]")) each.checked = event.target.checked;
  }

  function updatePage() {
    updateTimes();
    for (const each of document.querySelectorAll("[data-tail]")) each.scrollTop = each.scrollHeight;
    if (document.getElementById("history")?.dataset.history !== drawnData) draw();
  }

  document.addEventListener("keydown", handleKey);
  document.addEventListener("change", selectAll);
  document.addEventListener("htmx:after:request", keepPage);
  document.addEventListener("htmx:after:swap", updatePage);
  addEventListener("resize", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  updatePage();
  listen();
  setInterval(updateTimes, 1000);
})();
