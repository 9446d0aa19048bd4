"use strict";
// Draws the page's plots anew where scripts run: numbers under the pointer, axes that filter.
// Without scripts, or without ECharts, the pictures that are there stay.
(() => {
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const RATIOS = ["#64748b", "#2a9d8f", "#d08a1d", "#b93a0b"];
  const axis = () => ({ axisLine: { lineStyle: { color: css("edge") } }, axisLabel: { color: css("muted") },
    nameTextStyle: { color: css("muted") }, splitLine: { lineStyle: { color: css("line") } } });
  const tip = () => ({ backgroundColor: css("card"), borderColor: css("edge"), textStyle: { color: css("ink"), fontSize: 13 } });
  const escaped = (text) => { const one = document.createElement("i"); one.textContent = text; return one.innerHTML; };
  const narrow = (box) => box.clientWidth < 560;

  function methods(d, box) {
    const small = narrow(box), rows = d.names.length, names = d.names.slice().reverse(), h = rows * 34 + 60;
    const sides = ["wga", "aga"], titles = ["Worst-group accuracy (WGA), %", "Average over groups (AGA), %"];
    const left = small ? 130 : 230;
    const grid = small
      ? [{ left, right: 40, top: 30, height: h - 60 }, { left, right: 40, top: h + 30, height: h - 60 }]
      : [{ left, width: "34%", top: 30, bottom: 30 }, { right: 40, width: "34%", top: 30, bottom: 30 }];
    const series = [];
    sides.forEach((key, i) => {
      const own = d[key].slice().reverse(), ours = d.ours.slice().reverse();
      series.push({ type: "bar", xAxisIndex: i, yAxisIndex: i, barWidth: "58%", data: own.map((m, r) => ({ value: m.mean, itemStyle: { color: css(ours[r] ? "accent" : "reference") } })),
        label: { show: true, position: "insideLeft", color: "#fff", fontWeight: 600, formatter: (p) => (p.value > 8 ? p.value.toFixed(1) : "") } });
      series.push({ type: "custom", xAxisIndex: i, yAxisIndex: i, silent: true, z: 5, data: own.map((m, r) => [m.interval[0], r, m.interval[1]]),
        renderItem: (_, api) => { const a = api.coord([api.value(0), api.value(1)]), b = api.coord([api.value(2), api.value(1)]);
          return { type: "line", shape: { x1: a[0], y1: a[1] - 8, x2: b[0], y2: b[1] - 8 }, style: { stroke: css("point"), lineWidth: 1.3 } }; } });
      series.push({ type: "scatter", xAxisIndex: i, yAxisIndex: i, silent: true, z: 6, symbolSize: 5, itemStyle: { color: css("point") },
        data: own.flatMap((m, r) => m.seeds.filter((s) => s !== null).map((s) => [s, r])) });
    });
    return { height: small ? 2 * h + 10 : h, option: {
      title: titles.map((text, i) => ({ text, textStyle: { color: css("ink"), fontSize: 13 }, left: small ? 0 : i ? "auto" : left, right: small || !i ? "auto" : 60, top: small && i ? h : 0 })),
      grid, xAxis: sides.map((_, i) => ({ ...axis(), gridIndex: i, min: 0, max: 100 })),
      yAxis: sides.map((_, i) => ({ ...axis(), gridIndex: i, type: "category", data: names, splitLine: { show: false },
        axisLabel: { color: css("ink"), show: small || !i, width: left - 15, overflow: "truncate" }, axisTick: { show: false } })),
      tooltip: { ...tip(), trigger: "item", formatter: (p) => { const key = sides[Math.floor(p.seriesIndex / 3)], m = d[key].slice().reverse()[p.dataIndex];
        return `<b>${escaped(names[p.dataIndex])}</b><br>${key.toUpperCase()} ${m.mean} %<br>95 %: ${m.interval[0]} to ${m.interval[1]}<br>seeds: ${m.seeds.join(", ")}`; } },
      series } };
  }

  const trialTold = (d, n) => `<b>trial ${n + 1}</b>${d.stopped[n] ? ", stopped early" : ""}<br>validation WGA ${d.wga[n]} %<br>` +
    d.names.map((name, k) => `${escaped(name)} ${d.values[n][k]}`).join("<br>");
  const colour = (d, n) => { const all = [...new Set(d.ratio)].sort((a, b) => a - b);
    return RATIOS[all.length < 2 ? 3 : Math.round((all.indexOf(d.ratio[n]) * 3) / (all.length - 1))]; };

  function search(d, box) {
    const columns = narrow(box) ? 1 : 3, shown = d.names.map((name, k) => [name, k]).filter(([name]) => name !== "ratio");
    const top = 190, each = 165, rows = Math.ceil(shown.length / columns), grid = [{ left: 50, right: 20, top: 34, height: top - 75 }];
    const dots = (xs, i) => ({ type: "scatter", xAxisIndex: i, yAxisIndex: i, symbolSize: 9,
      data: xs.map((x, n) => ({ value: [x, d.wga[n]], itemStyle: { color: d.stopped[n] ? "transparent" : colour(d, n), borderColor: colour(d, n), borderWidth: 1.8 } })) });
    const low = Math.floor(Math.min(...d.wga) / 20) * 20, high = Math.ceil((Math.max(...d.wga) + 1) / 20) * 20;
    const y = (i) => ({ ...axis(), gridIndex: i, min: low, max: Math.min(100, high), interval: 20 });
    let best = -1;
    const so = d.wga.map((value) => (best = Math.max(best, value)));
    const xAxis = [{ ...axis(), gridIndex: 0, name: "trial", nameLocation: "middle", nameGap: 24, min: 0.5, max: d.wga.length + 0.5, minInterval: 1, splitLine: { show: false }, axisLabel: { color: css("muted"), formatter: (v) => (Number.isInteger(v) ? v : "") } }];
    const yAxis = [y(0)], series = [dots(d.wga.map((_, n) => n + 1), 0),
      { type: "line", step: "end", silent: true, symbol: "none", xAxisIndex: 0, yAxisIndex: 0, lineStyle: { color: css("muted"), width: 1.2 }, data: so.map((value, n) => [n + 1, value]) }];
    shown.forEach(([name, k], p) => {
      const i = p + 1, column = p % columns, row = Math.floor(p / columns);
      grid.push({ left: `${(100 / columns) * column + (columns > 1 ? 4.5 : 14)}%`, width: `${100 / columns - (columns > 1 ? 6.5 : 18)}%`, top: top + row * each + 30, height: each - 70 });
      const own = d.values.map((row) => row[k]);
      xAxis.push({ ...axis(), gridIndex: i, type: d.log[k] ? "log" : "value", scale: true, name, nameLocation: "middle", nameGap: 22, splitNumber: 3, axisLabel: { color: css("muted"), hideOverlap: true } });
      yAxis.push(y(i));
      series.push(dots(own, i));
    });
    return { height: top + rows * each, option: { grid, xAxis, yAxis, series,
      title: { text: "Validation WGA, %: the line is the best so far", textStyle: { color: css("ink"), fontSize: 13 }, left: 0, top: 0 },
      tooltip: { ...tip(), trigger: "item", formatter: (p) => trialTold(d, p.dataIndex) } } };
  }

  function parallel(d, box) {
    const names = [...d.names, "validation WGA, %"];
    return { height: 340, option: {
      parallelAxis: names.map((name, dim) => ({ dim, name, type: d.log[dim] ? "log" : "value", scale: true, nameTextStyle: { color: css("ink"), fontWeight: 600 },
        axisLine: { lineStyle: { color: css("edge"), width: 1.5 } }, axisLabel: { color: css("muted"), hideOverlap: true }, splitNumber: 4,
        areaSelectStyle: { color: css("accent"), borderColor: css("accent"), opacity: 0.3, width: 18 } })),
      parallel: { left: 40, right: 70, top: 40, bottom: 20, layout: narrow(box) ? "vertical" : "horizontal" },
      tooltip: { ...tip(), trigger: "item", formatter: (p) => trialTold(d, p.dataIndex) },
      series: { type: "parallel", inactiveOpacity: 0.06, activeOpacity: 1, lineStyle: { width: 2.2 },
        data: d.values.map((row, n) => ({ value: [...row, d.wga[n]], lineStyle: { color: colour(d, n), type: d.stopped[n] ? "dashed" : "solid", opacity: d.stopped[n] ? 0.6 : 1 } })) } } };
  }

  function scores(d, box) {
    const columns = narrow(box) ? 1 : Math.min(4, d.names.length), rows = Math.ceil(d.names.length / columns), each = 165;
    const middle = d.edges.slice(1).map((edge, n) => ((edge + d.edges[n]) / 2).toFixed(3)), grid = [], xAxis = [], yAxis = [], series = [], title = [];
    d.names.forEach((name, g) => {
      const column = g % columns, row = Math.floor(g / columns), left = (100 / columns) * column + (columns > 1 ? 3.5 : 12), width = 100 / columns - (columns > 1 ? 5 : 15);
      grid.push({ left: `${left}%`, width: `${width}%`, top: 55 + row * each, height: each - 70 });
      title.push({ text: name, left: `${left}%`, top: 30 + row * each, textStyle: { color: css("ink"), fontSize: 13, width: (box.clientWidth * width) / 100, overflow: "truncate" } });
      xAxis.push({ ...axis(), gridIndex: g, type: "category", data: middle, axisLabel: { color: css("muted"), hideOverlap: true, formatter: (v) => (+v).toFixed(2) }, axisTick: { show: false } });
      yAxis.push({ ...axis(), gridIndex: g, splitNumber: 3, minInterval: 1 });
      ["kept", "rejected"].forEach((kind) => series.push({ name: kind, type: "bar", stack: "s" + g, xAxisIndex: g, yAxisIndex: g, barCategoryGap: "6%",
        data: d.counts[g][kind], itemStyle: { color: css(kind === "kept" ? "accent" : "reference") } }));
    });
    return { height: 40 + rows * each, option: { grid, xAxis, yAxis, series, title, color: [css("accent"), css("reference")],
      legend: { data: ["kept", "rejected"], right: 0, top: 0, textStyle: { color: css("ink") } },
      tooltip: { ...tip(), trigger: "axis", axisPointer: { type: "shadow" }, formatter: (ps) => `score about ${ps[0].axisValue}<br>` + ps.map((p) => `${p.seriesName} ${p.value}`).join("<br>") } } };
  }

  const KINDS = { methods, search, parallel, scores };
  function draw(figure) {
    const data = JSON.parse(figure.querySelector("script").textContent), picture = figure.querySelector(".picture");
    let box = figure.querySelector(".live");
    figure.hidden = false;
    if (!box) { box = document.createElement("div"); box.className = "live"; figure.prepend(box); }
    const made = KINDS[figure.dataset.chart](data, box);
    const old = echarts.getInstanceByDom(box);
    if (old) old.dispose();
    box.style.height = made.height + "px";
    box.setAttribute("role", "img");
    box.setAttribute("aria-label", figure.dataset.alt);
    const chart = echarts.init(box, null, { renderer: "svg" });
    chart.setOption({ animation: false, textStyle: { fontFamily: css("sans") }, ...made.option });
    if (picture) picture.hidden = true;
  }
  function all() {
    for (const figure of document.querySelectorAll("figure[data-chart]"))
      if (KINDS[figure.dataset.chart]) try { draw(figure); } catch (error) { const p = figure.querySelector(".picture"); if (p) p.hidden = false; console.warn(error); }
  }
  // What does not scroll need not be a stop of the keyboard's way.
  function stops() {
    for (const box of document.querySelectorAll(".scroll, .picture"))
      box.tabIndex = box.scrollWidth > box.clientWidth + 1 ? 0 : -1;
  }
  // On paper: every part that is folded, and what only a script draws, in the light colours.
  const paper = matchMedia("print"), folded = () => document.querySelectorAll("details:not([open])");
  let opened = [];
  function toPaper() {
    if (document.documentElement.classList.contains("paper")) return;
    document.documentElement.classList.add("paper");
    opened = [...folded()];
    opened.forEach((one) => (one.open = true));
    if (window.echarts) scripted();
  }
  function toScreen() {
    document.documentElement.classList.remove("paper");
    opened.forEach((one) => (one.open = false));
    if (window.echarts) scripted();
  }
  const scripted = () => document.querySelectorAll("figure.script").forEach(draw);
  addEventListener("beforeprint", toPaper);
  addEventListener("afterprint", toScreen);
  paper.addEventListener("change", (told) => (told.matches ? toPaper() : toScreen()));
  if (window.echarts) {
    all();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
    let width = innerWidth, later = 0;
    addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; clearTimeout(later); later = setTimeout(() => { all(); stops(); }, 150); } });
  }
  stops();
})();
