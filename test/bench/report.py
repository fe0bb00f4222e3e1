#!/usr/bin/python3
"""Prints the table of the results: report.py RESULTS.jsonl DIRECTORY

Leaves results.txt, results.md and results.json in DIRECTORY.  The exit status is 1 when a goal was
missed or a program failed.  $BENCH_SECONDS is how long the run took.
"""

import datetime
import json
import os
import platform
import re
import subprocess
import sys


def output_of(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


def flushes(directory):
    """Writes of one page that reach the disk in a second, one after the other, by method."""
    # It goes on with other things, which take long.
    one_page = ""
    try:
        with subprocess.Popen(["pg_test_fsync", "-s", "1", "-f", f"{directory}/pg_test_fsync.out"], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True) as process:
            for line in process.stdout:
                if "using two" in line:
                    break
                one_page += line
            process.terminate()
    except OSError:
        return {}
    return {method: float(rate) for method, rate in re.findall(r"^\s+(fdatasync|fsync)\s+([0-9.]+) ops/sec", one_page, re.M)}


def machine(directory):
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        model = re.search(r"^model name\s*:\s*(.*)$", info.read(), re.M)
    with open("/etc/os-release", encoding="utf-8") as release:
        system = re.search(r'^PRETTY_NAME="(.*)"$', release.read(), re.M)
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": os.environ.get("BENCH_COMMIT", ""),
        "command": " ".join(["make bench"] + [f'{name}="{os.environ[name]}"' for name in ("QUICK", "BENCH_ONLY", "BENCH_SKIP")
                                              if os.environ.get(name)]),
        "processor": f"{os.cpu_count()} x {model[1] if model else platform.processor()}",
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": system[1] if system else platform.platform(),
        "postgresql": output_of("postgres", "--version").strip(),
        "flushes_per_second": flushes(directory),
        "seconds": int(os.environ.get("BENCH_SECONDS", "0")),
    }


def number(value):
    if value is None:
        return ""
    if isinstance(value, float) and abs(value) < 10 and value != int(value):
        # Numbers that would read as 0 get another digit.
        return f"{value:.2f}" if abs(value) >= 0.01 else f"{value:.3f}"
    if isinstance(value, float) and abs(value) < 100 and value != int(value):
        return f"{value:.1f}"
    return f"{value:,.0f}"


def with_signs(goal):
    return goal.replace("<=", "≤").replace(">=", "≥")


def judgement(line):
    return {None: "", True: "met", False: "MISSED"}[line["met"]]


def about(facts):
    rates = ", ".join(f"{method} {number(rate)}" for method, rate in facts["flushes_per_second"].items())
    return [f"{facts['date']}, {facts['commit'] or 'no commit'}: {facts['command']}",
            f"{facts['system']}, {facts['postgresql']}, {facts['processor']}, {facts['memory_gb']} GB",
            f"writes of 8 kB that reach the disk in a second: {rates or 'not known'}",
            f"the run took {facts['seconds'] // 60} min {facts['seconds'] % 60} s"]


def text_table(lines):
    wide = max(len(line["measure"]) for line in lines)
    for line in lines:
        if "left_out" in line:
            yield f"{line['row']:4} {line['measure']:{wide}}  left out: {line['left_out']}"
            continue
        ratio = "" if line["ratio"] is None else f"{line['ratio']:.2f}"
        yield (f"{line['row']:4} {line['measure']:{wide}} {number(line['floor']):>12} {number(line['value']):>12} "
               f"{line['unit']:8} {ratio:>6} {line['goal'] or '':>9} {judgement(line):6} {line['detail'] or ''}").rstrip()


def markdown_table(lines):
    yield "| | measure | other | qml | | ratio | goal | |"
    yield "|---|---|---|---|---|---|---|---|"
    for line in lines:
        if "left_out" in line:
            yield f"| {line['row']} | {line['measure']} | | | | | | left out: {line['left_out']} |"
            continue
        ratio = "" if line["ratio"] is None else f"{line['ratio']:.2f}"
        goal = with_signs(line["goal"] or "")
        measure = line["measure"] + (f" ({line['detail']})" if line["detail"] else "")
        yield (f"| {line['row']} | {measure} | {number(line['floor'])} | {number(line['value'])} | {line['unit']} "
               f"| {ratio} | {goal} | {judgement(line)} |")


def order(line):
    digits = re.search(r"\d+", line["row"])
    return int(digits[0]) if digits else 99


def shortcomings(lines, failed, environment=os.environ):
    """What keeps a run from being the whole benchmark, as texts."""
    yield from (f"{name} was set" for name in ("QUICK", "BENCH_ONLY", "BENCH_SKIP") if environment.get(name, "") not in ("", "0"))
    yield from (f"FAILED: {name}" for name in failed)
    yield from (f"left out: {line['row']} {line['measure']}: {line['left_out']}" for line in lines if "left_out" in line)
    if not lines:
        yield "there is no row"


def summary(lines, failed):
    judged = [line for line in lines if line.get("met") is not None]
    missed = sum(not line["met"] for line in judged)
    out = sum(line["goals"] for line in lines if "left_out" in line)
    return (f"{len(judged) + out} goals: {len(judged) - missed} met, {missed} missed, {out} not measured"
            + "".join(f"; FAILED: {name}" for name in failed))


def write(every, facts, directory):
    """Prints and writes the lines of the results; the exit status."""
    failed = [line["failed"] for line in every if "failed" in line]
    # Stable: the rows of one number stay in the order in which they were measured.
    lines = sorted((line for line in every if "row" in line), key=order)
    text = about(facts) + [""] + (list(text_table(lines)) if lines else []) + ["", summary(lines, failed)]
    print("\n".join(text))
    with open(f"{directory}/results.txt", "w", encoding="utf-8") as file:
        file.write("\n".join(text) + "\n")
    with open(f"{directory}/results.md", "w", encoding="utf-8") as file:
        file.write("\n".join([f"- {fact}" for fact in about(facts) + [summary(lines, failed)]]
                             + [""] + list(markdown_table(lines))) + "\n")
    with open(f"{directory}/results.json", "w", encoding="utf-8") as file:
        json.dump({"machine": facts, "summary": summary(lines, failed), "shortcomings": list(shortcomings(lines, failed)),
                   "rows": lines, "failed": failed}, file, indent=1)
    return 1 if failed or not lines or any(line.get("met") is False for line in lines) else 0


def main(results, directory):
    with open(results, encoding="utf-8") as file:
        every = [json.loads(line) for line in file]
    return write(every, machine(directory), directory)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
