#!/usr/bin/env python3
"""Finds what Clang's analysis of coroutine_fn misses: usage coroutine_marks.py DIRECTORY...

- an override without the mark of a virtual coroutine_fn: called through the derived class it may be called from anywhere;
- a callable without the mark that is run as a coroutine: std::function and pointers hide from the analysis that it runs in
  one, so that nothing keeps it from calling what blocks;
- a callable with the mark that is given to a worker thread.

A plain entry function, void(void*), cannot carry the mark; it says Coroutine::assume_in_coroutine() instead. Works on the text,
so it relies on the layout that clang-format makes.
"""
import pathlib
import re
import sys

NOISE = re.compile(r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.S)
CLASS = re.compile(r'\b(?:class|struct)\s+(?:\[\[\w+\]\]\s*)?(?:CO_\w+(?:\("[^"]*"\))?\s+)?(\w[\w:]*)(?:\s+final)?\s*(?::([^;{()]*))?{')
METHOD = re.compile(r'([~\w]+)\s*\(')
RUNS_AS_COROUTINE = re.compile(r'\b(?:Coroutine::create|run_in_main_loop|(?:\.|->)\s*start|(?<![\w.>:])(?:test::)?start)\s*\(\s*')
RUNS_ON_WORKER = re.compile(r'\b(?:co_run_on_worker|instance\(\)\.run)\s*\(\s*')
CLOSING = {'(': ')', '[': ']', '{': '}'}


def blank(match):
    """Same length and lines, nothing to misread."""
    return re.sub(r'[^\n]', ' ', match.group())


def end_of(text, start):
    """The index behind the bracket that closes the one at `start`."""
    opening, closing, depth = text[start], CLOSING[text[start]], 0
    for i in range(start, len(text)):
        depth += (text[i] == opening) - (text[i] == closing)
        if depth == 0:
            return i + 1
    return len(text)


def methods(body):
    """Name, offset and what follows the parameters, for each function declared at the top level of a class body."""
    i = 0
    while match := METHOD.search(body, i):
        brace = body.find('{', i)
        if 0 <= brace < match.start():
            i = end_of(body, brace)
            continue
        end = end_of(body, match.end() - 1)
        tail = re.match(r'[^;{]*', body[end:]).group()
        yield match.group(1), match.start(), tail
        i = end + len(tail)


class Tree:
    def __init__(self, directories):
        self.texts = {path: NOISE.sub(blank, path.read_text())
                      for directory in directories for path in sorted(pathlib.Path(directory).rglob('*'))
                      if path.suffix in ('.h', '.cc')}
        self.bases, self.marked, self.overrides = {}, {}, []
        self.complaints = []
        for path, text in self.texts.items():
            self.read_classes(path, text)

    def complain(self, path, offset, words):
        line = self.texts[path].count('\n', 0, offset) + 1
        self.complaints.append(f'{path}:{line}: {words}')

    def read_classes(self, path, text):
        for match in CLASS.finditer(text):
            name = match.group(1).split('::')[-1]
            bases = [re.sub(r'<.*', '', base).split()[-1].split('::')[-1] for base in (match.group(2) or '').split(',')
                     if base.strip()]
            self.bases.setdefault(name, set()).update(bases)
            opening = match.end() - 1
            body = text[opening + 1:end_of(text, opening) - 1]
            for method, offset, tail in methods(body):
                if 'coroutine_fn' in tail.replace('no_coroutine_fn', ''):
                    self.marked.setdefault(name, set()).add(method)
                elif re.search(r'\boverride\b', tail):
                    self.overrides.append((path, opening + 1 + offset, name, method))

    def ancestors(self, name, seen=()):
        for base in self.bases.get(name, ()):
            if base not in seen:
                yield base
                yield from self.ancestors(base, (*seen, base))

    def check_overrides(self):
        for path, offset, name, method in self.overrides:
            for base in self.ancestors(name):
                if method in self.marked.get(base, ()):
                    self.complain(path, offset, f'{name}::{method}() overrides a coroutine_fn of {base} without the mark')
                    break

    def lambda_tail(self, text, start):
        """Between the parameters and the body of the lambda at `start`, and the body."""
        end = end_of(text, start)
        parameters = re.match(r'\s*\(', text[end:])
        if parameters:
            end = end_of(text, end + parameters.end() - 1)
        opening = text.index('{', end)
        return text[end:opening], text[opening:end_of(text, opening)]

    def check_callables(self):
        for path, text in self.texts.items():
            for match in RUNS_AS_COROUTINE.finditer(text):
                start = match.end()
                if text[start] == '[':
                    tail, body = self.lambda_tail(text, start)
                    if 'coroutine_fn' not in tail and 'assume_in_coroutine()' not in body:
                        self.complain(path, start, 'a lambda without coroutine_fn is run as a coroutine')
                elif function := re.match(r'&?(\w+)\s*,', text[start:]):
                    self.check_function(path, text, start, function.group(1))
            for match in RUNS_ON_WORKER.finditer(text):
                if text[match.end()] == '[' and 'coroutine_fn' in self.lambda_tail(text, match.end())[0]:
                    self.complain(path, match.end(), 'a coroutine_fn is given to a worker thread')

    def check_function(self, path, text, offset, name):
        """For a function of the same file. Another name is a variable, whose lambda is looked at here too."""
        if declared := re.search(rf'\bauto {name} = (?=\[)', text[:offset]):
            tail, body = self.lambda_tail(text, declared.end())
        elif declared := re.search(rf'\bvoid {name}\(', text):
            end = end_of(text, declared.end() - 1)
            opening = text.find('{', end)
            tail, body = text[end:opening], text[opening:end_of(text, opening)]
        else:
            return
        if 'coroutine_fn' not in tail and 'assume_in_coroutine()' not in body:
            self.complain(path, offset, f"'{name}' without coroutine_fn is run as a coroutine")


def main():
    tree = Tree(sys.argv[1:])
    if not tree.marked:
        sys.exit('coroutine_marks.py: no coroutine_fn anywhere: nothing was looked at')
    tree.check_overrides()
    tree.check_callables()
    print('\n'.join(tree.complaints), end='\n' if tree.complaints else '')
    sys.exit(bool(tree.complaints))


main()
