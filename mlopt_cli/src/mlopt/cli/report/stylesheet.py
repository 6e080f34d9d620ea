"""The style sheet of a report: light and dark, page and phone, figures included."""

from __future__ import annotations

CSS = """
:root { color-scheme: light dark; --page: #fff; --card: #f6f7f9; --ink: #1b2027; --soft: #5b6672; --rule: #e0e4e9;
  --other: #9aa7b5; --reached: #0a8078; --best: #d9630a; --target: #1b2027; --warn: #fff4d6; --warn-ink: #6b4a00; }
@media (prefers-color-scheme: dark) { :root { --page: #14181d; --card: #1c2229; --ink: #e6eaef; --soft: #9aa6b3;
  --rule: #2d353f; --other: #66727f; --reached: #35b8ac; --best: #ff9640; --target: #e6eaef; --warn: #3a2f10;
  --warn-ink: #ffdf94; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.75rem 1.25rem 3rem; max-width: 58rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif;
  overflow-wrap: break-word; -webkit-text-size-adjust: 100%; }
h1 { font-size: 1.5rem; line-height: 1.3; margin: 0 0 .4rem; text-wrap: balance; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .4rem; }
p { margin: .4rem 0; }
.soft, figcaption, .caption { color: var(--soft); font-size: .875rem; }
.warn { background: var(--warn); color: var(--warn-ink); padding: .6rem .9rem; border-radius: 6px; margin: .9rem 0; }
.warn ul { margin: .2rem 0; padding-left: 1.2rem; }
dl.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(11.5rem, 47%), 1fr)); gap: .6rem;
  margin: 1.4rem 0; }
dl.tiles > div { background: var(--card); border-radius: 8px; padding: .7rem .9rem; }
dl.tiles dt { color: var(--soft); font-size: .8125rem; }
dl.tiles dd { margin: 0; font-size: 1.25rem; font-weight: 600; font-variant-numeric: tabular-nums; line-height: 1.35; }
dl.tiles dd small { display: block; font-size: .8125rem; font-weight: 400; color: var(--soft); line-height: 1.35; }
figure { margin: .4rem 0 0; container-type: inline-size; }
figure.drawn { overflow-x: auto; }
figure.drawn img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 8px; }
figure.drawn.wide img { min-width: min(44rem, 200%); }
svg.figure { display: block; width: 100%; height: auto; }
svg.figure text { font-size: 11.5px; fill: var(--soft); font-variant-numeric: tabular-nums; }
@container (max-width: 36rem) { svg.figure text { font-size: 20px; } }
svg.figure path { fill: none; }
svg.figure .grid { stroke: var(--rule); } svg.figure .axis { stroke: var(--soft); }
path.other, path.reached, path.best { stroke-linejoin: round; }
path.other { stroke: var(--other); stroke-width: 1; opacity: .55; }
path.reached { stroke: var(--reached); stroke-width: 1.2; opacity: .8; }
path.best { stroke: var(--best); stroke-width: 2.4; }
circle.reached { fill: var(--reached); stroke: var(--page); } circle.best { fill: var(--best); stroke: var(--page); }
path.target { stroke: var(--target); stroke-dasharray: 6 4; stroke-width: 1.2; }
rect.other { fill: var(--other); } rect.reached { fill: var(--reached); }
path.rug { stroke-width: 1; opacity: .9; }
svg.figure path.band { fill: var(--reached); opacity: .16; stroke: none; }
path.law { stroke: var(--ink); stroke-width: 1.4; stroke-dasharray: 2 4; stroke-linecap: round; }
.success path.reached { stroke-width: 2.4; opacity: 1; }
ul.key { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; margin: .3rem 0; padding: 0;
  font-size: .875rem; color: var(--soft); }
ul.key li { display: flex; align-items: center; gap: .4rem; }
ul.key i { width: 1.4rem; height: 0; border-top: 3px solid var(--soft); }
ul.key i.other { border-color: var(--other); } ul.key i.reached { border-color: var(--reached); }
ul.key i.best { border-color: var(--best); } ul.key i.target { border-top: 2px dashed var(--target); }
ul.key i.law { border-top: 2px dotted var(--ink); }
ul.key i.band { height: .8rem; border: 0; background: var(--reached); opacity: .25; }
ul.key i.bar { width: .8rem; height: .8rem; border: 0; background: var(--other); }
ul.key i.bar.reached { background: var(--reached); }
ul.key svg { width: .9rem; height: .9rem; }
.definitions { position: absolute; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(14rem, 42%), 1fr)); gap: .8rem;
  margin: .8rem 0; }
.gallery figure { margin: 0; background: var(--card); border-radius: 8px; padding: .5rem .6rem .6rem;
  text-align: center; --page: var(--card); }
.gallery svg { display: block; width: 100%; height: auto; max-width: 17rem; margin: 0 auto; }
.gallery figcaption b { color: var(--ink); font-variant-numeric: tabular-nums; }
.balls .fade { fill: var(--card); } .balls .edge { stroke: var(--soft); fill: none; }
.scroll { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .28rem .5rem; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; white-space: normal; vertical-align: bottom; }
th.left, td.left { text-align: left; }
td.left { white-space: normal; min-width: 4.5rem; }
td.wrap { white-space: normal; overflow-wrap: anywhere; min-width: 10rem; }
tr.reached td:first-child { box-shadow: inset 3px 0 var(--reached); }
details { margin: .8rem 0; border-top: 1px solid var(--rule); padding-top: .7rem; }
summary { cursor: pointer; font-weight: 600; }
pre { background: var(--card); border-radius: 8px; padding: .8rem 1rem; overflow-x: auto; font-size: .8125rem;
  line-height: 1.45; }
code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; font-size: .92em; }
a { color: inherit; }
@media print { body { max-width: none; } .gallery figure, figure { break-inside: avoid; } }
"""
