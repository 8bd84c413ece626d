#!/usr/bin/python3
"""Whether the written documentation still fits the project.

    python3 tests/docs/check_docs.py [--root DIR] [--write] [--self-test]

- Links between pages and files exist, and so do their anchors.
- Option names in the pages exist in config/options.def or options_grpc.def; in
  --set and in ini blocks also the section is right.
- Metric names exist in proxy/core/stats.def, grpc_stats.def, proxy/io/metrics.c,
  node_report.c or grpc_metrics.c.
- `redis.md §4` and its like in comments have a heading "## 4."; I, H and S
  numbers have a row in docs/reliability.md; tags such as (K5) in the files of
  gRPC have a rule in docs/grpc.md.
- Commands of `./run` in the pages are commands that ./run knows.
- The list of commands in docs/redis-commands.md is that of commands.def.
  --write brings it up to date.
- Every source file stands in the tree of docs/ARCHITECTURE.md.
- docs/differential.md has a row for each exception and normaliser of the
  differential run, and no others.

--self-test gives each check something wrong and sees it fail.
"""

import argparse
import os
import re
import sys
import tempfile

SKIPPED = {".git", "build", "node_modules", ".pytest_cache", "__pycache__"}
CODE = (".c", ".h", ".def", ".py", ".js", ".sh", ".cmake", ".txt", ".trace")
DESIGN_PAGES = {"DESIGN.md", "redis.md", "grpc.md", "reliability.md"}

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*#*$")
SECTION_REFERENCE = re.compile(
    r"(DESIGN|redis|grpc|reliability)\.md,?\s+((?:§?\d+(?:\.\d+)?(?:,\s*)?)+)")
NUMBER_REFERENCE = re.compile(r"(?<![\w.%-])([IHS])(\d{1,2})(?![\w.])")
# Rules of docs/grpc.md, and the files that mean them by such a tag. A6 and
# above are gRFCs.
TAG = re.compile(r"(?<![\w.%-])(FL|[A-Z])(\d{1,2})(?![\w.%])")
TAG_DEFINED = re.compile(r"\*\*(\w+)\*\*|^\| (\w+) \|", re.M)
TAGGED_FILE = re.compile(r"^(parser|config|proxy|tests)/(.*[/_])?"
                         r"(grpc|h2|newcomer|service_|channel_)\w*\.\w+$")

BEGIN = "<!-- commands: check_docs.py --write makes this list -->"
END = "<!-- end of commands -->"
CLASSES = ("R", "RN", "I", "T", "S", "D", "N", "BR", "BN", "BW", "C", "X", "A")


def read(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def files(root, endings):
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if f not in SKIPPED
                            and not f.startswith("corpus"))
        for name in sorted(names):
            is_run = name == "run" and folder == root and endings == CODE
            if name.endswith(endings) or is_run:
                yield os.path.join(folder, name)


def pages(root):
    return list(files(root, (".md",)))


def prose_lines(text):
    """(line number, line) outside of code blocks."""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, line


def code_blocks(text):
    """(line number, language, lines) of each code block."""
    block, language, begin = None, "", 0
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped.startswith("```"):
            if block is not None:
                block.append(line)
        elif block is None:
            block, language, begin = [], stripped[3:], number
        else:
            yield begin, language, block
            block = None


def anchor_of(title):
    """As GitHub makes it."""
    title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
    title = re.sub(r"[`*]", "", title).lower()
    return re.sub(r"[^\w\- ]", "", title).replace(" ", "-")


def headings(text):
    for _, line in prose_lines(text):
        match = HEADING.match(line)
        if match:
            yield match.group(2)


def anchors(text):
    seen, result = {}, set()
    for title in headings(text):
        anchor = anchor_of(title)
        count = seen.get(anchor, 0)
        seen[anchor] = count + 1
        result.add(f"{anchor}-{count}" if count else anchor)
    return result


# ---- links ----

def check_links(root):
    for page in pages(root):
        text = read(page)
        for number, line in prose_lines(text):
            line = re.sub(r"`[^`]*`", "", line) if "](" not in line else line
            for target in LINK.findall(line):
                if re.match(r"[a-z]+:", target):
                    continue
                path, _, anchor = target.partition("#")
                full = os.path.normpath(
                    os.path.join(os.path.dirname(page), path)) if path else page
                where = f"{os.path.relpath(page, root)}:{number}"
                if not os.path.exists(full):
                    yield f"{where}: no such file: {target}"
                elif anchor and full.endswith(".md") \
                        and anchor not in anchors(read(full)):
                    yield f"{where}: no such heading: {target}"


# ---- options and metrics ----

def options(root):
    """section -> set of keys."""
    text = "".join(read(os.path.join(root, "config", name))
                   for name in ("options.def", "options_grpc.def"))
    names = dict(re.findall(r'^SECTION\((\w+), "(\w+)"', text, re.M))
    result = {name: set() for name in names.values()}
    for section, key in re.findall(
            r'^OPTION(?:_FOR\([A-Z |]+,\s*|\()(\w+),\s*'
            r'(?:NO_FIELD|FIELD\([^)]*\)),\s*"([^"]+)"',
            text, re.M):
        result[names[section]].add(key)
    # Defaults for all upstreams of gRPC.
    result["grpc"] |= result["upstream"] - {"nodes", "target", "url"}
    return result


def option_exists(known, section, key):
    if section == "upstream" and key.startswith("replay."):
        return True
    return key in known.get(section, ())


def ini_complaints(known, lines):
    section = None
    for line in lines:
        head = re.match(r"\[(\w+)", line)
        pair = re.match(r"([\w.:]+)\s*=", line)
        if head:
            section = head.group(1)
            if section not in known:
                yield f"no section [{section}]"
        elif pair and section and not option_exists(known, section,
                                                    pair.group(1)):
            yield f"no option {pair.group(1)} in [{section}]"


def check_options(root):
    known = options(root)
    keys = set().union(*known.values())
    for page in pages(root):
        text, name = read(page), os.path.relpath(page, root)
        for begin, language, lines in code_blocks(text):
            if language == "ini":
                for complaint in ini_complaints(known, lines):
                    yield f"{name}:{begin}: {complaint}"
        for number, line in enumerate(text.splitlines(), 1):
            for setting in re.findall(r"--set[ =]'?([\w.]+)=", line):
                parts = setting.split(".")
                if parts[-1] == "key":
                    continue
                if not option_exists(known, parts[0], ".".join(parts[1:])) \
                        and not option_exists(known, parts[0],
                                              ".".join(parts[2:])):
                    yield f"{name}:{number}: no option {setting}"
            for span in re.findall(r"`([^`]+)`", line):
                pair = re.match(r"([a-z][a-z_]+) = ", span)
                if pair and pair.group(1) not in keys | {"key"}:
                    yield f"{name}:{number}: no option {pair.group(1)}"
                elif "_" in span and re.fullmatch(r"[a-z_]+", span) \
                        and not span.startswith("redial_") \
                        and span not in keys \
                        and not is_other_name(root, span):
                    yield f"{name}:{number}: neither an option nor a name " \
                          f"in the code: {span}"


class Names:
    """Words of the code, read once."""
    words = {}


def is_other_name(root, word):
    if root not in Names.words:
        text = "".join(read(f) for f in files(root, CODE)
                       if not f.endswith("check_docs.py"))
        Names.words[root] = set(re.findall(r"\w+", text))
    return word in Names.words[root]


def metrics(root):
    table = read(os.path.join(root, "proxy", "core", "stats.def"))
    names = set()
    for kind, name in re.findall(r"^(\w*COUNTER|\w*GAUGE)\((\w+)", table, re.M):
        names.add(name + ("_total" if kind.endswith("COUNTER") else ""))
    table = read(os.path.join(root, "proxy", "core", "grpc_stats.def"))
    for kind, name in re.findall(r"^GRPC_(COUNTER|GAUGE)\((\w+)", table, re.M):
        names.add("grpc_" + name + ("_total" if kind == "COUNTER" else ""))
    for file in ("metrics.c", "node_report.c", "grpc_metrics.c"):
        shell = read(os.path.join(root, "proxy", "io", file))
        names.update(re.findall(r'"(?:redial_)?(\w+)"[,;]', shell))
    for histogram in ("request_seconds",):
        names.update(histogram + end for end in ("_bucket", "_sum", "_count"))
    return names


def check_metrics(root):
    known = metrics(root)
    for page in pages(root):
        for number, line in enumerate(read(page).splitlines(), 1):
            for name in re.findall(r"\bredial_([a-z_]+\*?)", line):
                fits = any(k.startswith(name[:name.index("*")]) for k in known) \
                    if "*" in name else name in known or \
                    any(k.startswith(name) and k.endswith("_total") and
                        name.endswith("_") for k in known)
                if not fits:
                    yield f"{os.path.relpath(page, root)}:{number}: no " \
                          f"metric redial_{name}"


# ---- numbers ----

def sections_of(root, page):
    text = read(os.path.join(root, "docs", page))
    return {m.group(1) for title in headings(text)
            for m in [re.match(r"(\d+(?:\.\d+)?)\.?\s", title)] if m}


def numbered_rows(root):
    text = read(os.path.join(root, "docs", "reliability.md"))
    return set(re.findall(r"^\| ([IHS]\d+) \|", text, re.M))


def comment_text(path):
    """The file with the decoration of comments gone, so that a reference may
    go on in the next line."""
    text = read(path)
    return re.sub(r"\n[ \t]*(?:\*|#|//)?[ \t]*", " ", text)


def check_references(root):
    sections = {page: sections_of(root, page) for page in DESIGN_PAGES}
    rows = numbered_rows(root)
    for path in files(root, CODE):
        if path.endswith("check_docs.py"):
            continue
        text, name = comment_text(path), os.path.relpath(path, root)
        for page, numbers in SECTION_REFERENCE.findall(text):
            for number in re.findall(r"\d+(?:\.\d+)?", numbers):
                if number not in sections[page + ".md"]:
                    yield f"{name}: docs/{page}.md has no section {number}"
        if not re.search(r"^(tests/(sim|e2e|trace)|proxy|config|parser)/",
                         name):
            continue
        if TAGGED_FILE.match(name):
            continue
        comments = " ".join(re.findall(r"/\*.*?\*/|\"[^\"\n]*\"", text, re.S))
        for letter, number in NUMBER_REFERENCE.findall(
                re.sub(r"\bF\(.*?\)", "", comments)):
            if letter != "S" or name.startswith(("proxy", "parser", "config")):
                if letter + number not in rows:
                    yield f"{name}: docs/reliability.md has no row " \
                          f"{letter}{number}"


def check_tags(root):
    page = os.path.join(root, "docs", "grpc.md")
    rules = {a or b for a, b in TAG_DEFINED.findall(
        read(page) if os.path.exists(page) else "")}
    families = {re.sub(r"\d+$", "", rule) for rule in rules}
    for path in files(root, (".c", ".h", ".def")):
        name = os.path.relpath(path, root)
        if not TAGGED_FILE.match(name):
            continue
        comments = " ".join(re.findall(r"/\*.*?\*/", comment_text(path), re.S))
        for letter, number in TAG.findall(comments):
            is_grfc = letter == "A" and int(number) > 5
            if letter in families and not is_grfc \
                    and letter + number not in rules:
                yield f"{name}: docs/grpc.md has no rule {letter}{number}"


# ---- ./run ----

def check_run(root):
    script = read(os.path.join(root, "run"))
    known = set(re.findall(r"^([a-z]+)\)", script, re.M)) | {"help"}
    for page in pages(root):
        for number, line in enumerate(read(page).splitlines(), 1):
            for word in re.findall(r"\./run ([a-z]+)\b(?!:)", line):
                if word not in known:
                    yield f"{os.path.relpath(page, root)}:{number}: " \
                          f"./run {word} does not exist"


# ---- commands ----

def command_list(root):
    text = read(os.path.join(root, "parser", "commands.def"))
    of_class = {}
    for name, letter, rule in re.findall(
            r'^COMMAND\("([^"]+)", (\w+), (\w+)', text, re.M):
        of_class.setdefault(letter, []).append(
            name + ("" if rule == "NONE" else "\\*"))
    lines = [BEGIN, "", "| class | commands |", "| --- | --- |"]
    for letter in CLASSES:
        lines.append(f"| {letter} | {', '.join(of_class.pop(letter))} |")
    assert not of_class, of_class
    return "\n".join([*lines, "", END])


def replaced(root, text):
    begin, end = text.find(BEGIN), text.find(END)
    if begin < 0 or end < 0:
        return None
    return text[:begin] + command_list(root) + text[end + len(END):]


def check_commands(root):
    path = os.path.join(root, "docs", "redis-commands.md")
    if replaced(root, read(path)) != read(path):
        yield "docs/redis-commands.md: the list of commands is not that of " \
              "commands.def; run tests/docs/check_docs.py --write"


def write_commands(root):
    path = os.path.join(root, "docs", "redis-commands.md")
    text = replaced(root, read(path))
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


# ---- the map ----

def check_map(root):
    page = os.path.join(root, "docs", "ARCHITECTURE.md")
    text = read(page) if os.path.exists(page) else ""
    for floor in ("parser", "config", "proxy"):
        for path in files(os.path.join(root, floor), (".c", ".h", ".def")):
            stem, ending = os.path.splitext(os.path.basename(path))
            if f"{stem}.[ch]" not in text and stem + ending not in text:
                yield f"docs/ARCHITECTURE.md: " \
                      f"{os.path.relpath(path, root)} is not on the map"


# ---- the differential run ----

def check_differential(root):
    folder = os.path.join(root, "tests", "e2e", "differential")
    page = os.path.join(root, "docs", "differential.md")
    if not os.path.exists(page):
        return
    names = set(re.findall(r"^\[([\w-]+)\]", read(
        os.path.join(folder, "exceptions.ini")), re.M))
    names |= set(re.findall(r'^@normaliser\("([\w-]+)"', read(
        os.path.join(folder, "normalise.py")), re.M)) | {"kept-id"}
    rows = set(re.findall(r"^\| `([\w-]+)` \|", read(page), re.M))
    for name in sorted(names ^ rows):
        yield f"docs/differential.md: {name}: not both here and in " \
              "tests/e2e/differential"


CHECKS = (check_links, check_options, check_metrics, check_references,
          check_tags, check_run, check_commands, check_map,
          check_differential)


# ---- self test ----

SEEDED = {
    check_links: ("docs/x.md", "[a](nowhere.md)\n"),
    check_options: ("docs/x.md", "`--set upstream.dedline=1s`\n"),
    check_metrics: ("docs/x.md", "`redial_nonsense_total`\n"),
    check_references: ("proxy/x.c", "/* see redis.md\n * §77 and (I99) */\n"),
    check_tags: ("proxy/core/grpc_x.c", "/* as (K99) says, and A66 */\n"),
    check_run: ("docs/x.md", "`./run fly`\n"),
    check_commands: ("docs/redis-commands.md", f"{BEGIN}\n{END}\n"),
    check_map: ("proxy/core/unheard_of.c", ""),
    check_differential: ("docs/differential.md", "| `unheard-of` | x |\n"),
}


def self_test(root):
    """Returns the checks that did not find what is wrong."""
    blind = []
    for check, (path, text) in SEEDED.items():
        with tempfile.TemporaryDirectory() as folder:
            for name in ("config/options.def", "config/options_grpc.def",
                         "proxy/core/stats.def", "proxy/core/grpc_stats.def",
                         "proxy/io/metrics.c", "proxy/io/node_report.c",
                         "proxy/io/grpc_metrics.c",
                         "parser/commands.def", "run",
                         "tests/e2e/differential/exceptions.ini",
                         "tests/e2e/differential/normalise.py",
                         *(f"docs/{page}" for page in DESIGN_PAGES)):
                target = os.path.join(folder, name)
                os.makedirs(os.path.dirname(target), exist_ok=True)
                with open(target, "w", encoding="utf-8") as file:
                    file.write(read(os.path.join(root, name)))
            with open(os.path.join(folder, path), "w",
                      encoding="utf-8") as file:
                file.write(text)
            if not any(True for c in check(folder)
                       if os.path.basename(path) in c):
                blind.append(check.__name__)
    return blind


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    here = os.path.dirname(os.path.abspath(__file__))
    parser.add_argument("--root", default=os.path.dirname(os.path.dirname(here)))
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()
    root = os.path.abspath(arguments.root)
    if arguments.write:
        write_commands(root)
    if arguments.self_test:
        blind = self_test(root)
        for name in blind:
            print(f"{name} does not see what is wrong")
        return 1 if blind else 0
    complaints = [c for check in CHECKS for c in check(root)]
    for complaint in complaints:
        print(complaint)
    print(f"{len(complaints)} complaints about {len(pages(root))} pages")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
