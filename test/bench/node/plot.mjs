// Draws the rates of systems over the jobs that are done: plot.mjs POINTS.json OUT.svg
import { readFileSync, writeFileSync } from "node:fs";
import * as vega from "vega";
import { compile } from "vega-lite";

const [from, to] = process.argv.slice(2);
const { spec } = compile({
	data: { values: JSON.parse(readFileSync(from, "utf8")) },
	title: "Jobs a second while a snapshot is held",
	width: 640,
	height: 320,
	background: "white",
	mark: { type: "line", interpolate: "monotone" },
	// The median of a hundredth of the axis.
	transform: [
		{ bin: { maxbins: 100 }, field: "jobs", as: "from" },
		{ aggregate: [{ op: "median", field: "rate", as: "median" }], groupby: ["system", "from"] },
	],
	encoding: {
		x: { field: "from", type: "quantitative", title: "jobs done" },
		y: { field: "median", type: "quantitative", scale: { type: "log" }, title: "jobs a second" },
		color: { field: "system", type: "nominal", title: null, legend: { orient: "bottom", columns: 2 } },
	},
});
const view = new vega.View(vega.parse(spec), { renderer: "none" });

writeFileSync(to, await view.toSVG());
