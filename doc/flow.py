#!/usr/bin/env python3
"""Draws doc/flow.svg, the picture of the README: doc/flow.py >doc/flow.svg

Needs nothing but Python.  The colours follow the reader's light or dark theme.
"""

from html import escape

WIDTH, HEIGHT = 880, 430

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.title { font-weight: 600; }
.code { font: 12px ui-monospace, monospace; }
.label { fill: #57606a; font-size: 12px; }
.page { fill: #ffffff; }
.area { fill: #f6f8fa; stroke: #8c959f; }
.box { fill: #ffffff; stroke: #57606a; }
.state { fill: #ddf4ff; stroke: #0969da; }
.final { fill: #dafbe1; stroke: #1a7f37; }
.process { fill: #fff8c5; stroke: #9a6700; }
.line { fill: none; stroke: #57606a; stroke-width: 1.4; marker-end: url(#head); }
.head { fill: #57606a; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .label { fill: #9da7b3; }
  .page { fill: #0d1117; }
  .area { fill: #161b22; stroke: #6e7681; }
  .box { fill: #0d1117; stroke: #9da7b3; }
  .state { fill: #0c2d6b; stroke: #58a6ff; }
  .final { fill: #033a16; stroke: #3fb950; }
  .process { fill: #3b2300; stroke: #d29922; }
  .line { stroke: #9da7b3; }
  .head { fill: #9da7b3; }
}
"""


def text(x, y, words, kind="", anchor="middle"):
    return f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def box(x, y, width, height, kind, *lines):
    """A box with centred lines; the first one is the title, lines in `backquotes` are code."""
    parts = [f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" class="{kind}"/>']
    top = y + height / 2 - (len(lines) - 1) * 9 + 4.5
    for i, line in enumerate(lines):
        style = "code" if line.startswith("`") else "title" if i == 0 else "label"
        parts.append(text(x + width / 2, top + i * 18, line.strip("`"), style))
    return "\n".join(parts)


def area(x, y, width, height, title):
    return (f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="12" class="area"/>\n'
            + text(x + 14, y + 22, title, "title", "start"))


def arrow(path, label="", x=0, y=0, anchor="middle"):
    line = f'<path d="{path}" class="line"/>'
    return line + "\n" + text(x, y, label, "label", anchor) if label else line


def picture():
    return [
        area(206, 14, 448, 402, "PostgreSQL server, your database"),
        # producers
        box(12, 60, 170, 106, "box", "your transaction", "`INSERT INTO orders`", "`qml_enqueue(…)`", "`COMMIT`"),
        box(12, 232, 170, 58, "box", "schedule", "cron, time zones"),
        # inside
        box(232, 64, 120, 44, "state", "scheduled"),
        box(232, 148, 120, 44, "state", "enqueued"),
        box(444, 148, 120, 44, "state", "processing"),
        box(444, 64, 120, 44, "state", "awaiting retry"),
        box(232, 236, 120, 52, "process", "scheduler", "due, lost, expired"),
        box(444, 236, 186, 52, "process", "workers inside", "run SQL functions"),
        box(232, 342, 398, 54, "final", "history: succeeded, failed, deleted", "kept until they expire; results and errors stay readable"),
        # outside
        box(678, 124, 190, 92, "box", "workers outside", "any program that", "speaks SQL"),
        # flow
        arrow("M182 86 H230", "later", 194, 80, "start"),
        arrow("M182 150 H218 V170 H230"),
        arrow("M182 262 H230", "ticks", 190, 256, "start"),
        arrow("M292 108 V146", "due", 284, 130, "end"),
        arrow("M292 236 V194", "make ready", 300, 220, "start"),
        arrow("M352 164 H442", "claim", 397, 158),
        arrow("M442 182 H354", "release, lost", 397, 202),
        arrow("M504 148 V110", "fail", 510, 134, "start"),
        arrow("M444 86 H400 V132 H318 V146", "due", 384, 80),
        arrow("M537 236 V194", "claim, finish", 545, 220, "start"),
        arrow("M678 160 H566", "fetch, finish", 616, 152),
        arrow("M566 180 H676", "job", 640, 196),
        arrow("M464 192 V218 H424 V340", "succeed, fail for good", 432, 322, "start"),
    ]


def main():
    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">')
    print("<title>How a job flows through qml</title>")
    print(f"<style>{STYLE}</style>")
    print('<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
          '<path d="M0 0 L8 4 L0 8 z" class="head"/></marker></defs>')
    print(f'<rect width="{WIDTH}" height="{HEIGHT}" class="page"/>')
    print("\n".join(picture()))
    print("</svg>")


if __name__ == "__main__":
    main()
