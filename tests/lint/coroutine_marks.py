#!/usr/bin/env python3
"""Finds what Clang's analysis of coroutine_fn misses: usage coroutine_marks.py DIRECTORY...

- an override without the mark of a virtual coroutine_fn: called through the derived class it may be called from anywhere;
- a callable without the mark that is run as a coroutine: std::function and pointers hide from the analysis that it runs in
  one, so that nothing keeps it from calling what blocks;
- a callable with the mark that is given to a worker thread;
- a guard that takes a lock of coroutines in a function or lambda without the mark: the analysis cannot have two capabilities
  on a constructor. Guards that are members or in a std::optional are not looked at.

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
GUARD = re.compile(r'\b(Co(?:Mutex|Read|Write)Guard)\s+\w+\s*[({]')
NO_FUNCTION = re.compile(r'(?:if|for|while|switch|else|do|try|catch|case|default|return)\b|$')
NO_CODE = re.compile(r'(?:template\s*<[^;{]*>\s*)?(?:(?:inline\s+)?namespace|class|struct|union|enum|extern)\b')
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


def is_marked(tail):
    return re.search(r'\bcoroutine_fn\b', tail) is not None


def enclosing_braces(text, offset):
    """The offsets of the braces that are open at `offset`, innermost first."""
    opened = []
    for match in re.finditer('[{}]', text[:offset]):
        if match.group() == '{':
            opened.append(match.start())
        elif opened:
            opened.pop()
    return reversed(opened)


def head_of(text, brace):
    """What stands before a brace, from the end of the statement before it or from the bracket that holds it, and for each
    letter how many brackets are around it."""
    depth, depths, start = 0, [], brace
    while start > 0:
        letter = text[start - 1]
        if letter in ')]':
            depth += 1
        elif letter in '([':
            if depth == 0:
                break
            depth -= 1
        elif letter in ';{}' and depth == 0:
            break
        start -= 1
        depths.append(depth if letter not in '([' else depth + 1)
    return text[start:brace], depths[::-1]


def lambda_in(head, depths):
    """Where a lambda's captures begin, whose body follows the head; or None."""
    for match in reversed(list(re.finditer(r'(?<![\w)\]\[])\s*\[(?!\[)', head))):
        opening = match.end() - 1
        if depths[opening] == 1:
            return opening
    return None


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
                if is_marked(tail):
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

    def check_guards(self):
        for path, text in self.texts.items():
            for match in GUARD.finditer(text):
                marked, brace = None, 0
                for brace in enclosing_braces(text, match.start()):
                    marked = self.runs_in_coroutine(text, brace)
                    if marked is not None:
                        break
                if not marked and 'assume_in_coroutine()' not in text[brace:match.start()]:
                    self.complain(path, match.start(), f'a {match.group(1)} in what is not a coroutine_fn')

    def runs_in_coroutine(self, text, brace):
        """Whether the function or lambda whose body begins at `brace` is marked; None when that is neither."""
        head, depths = head_of(text, brace)
        captures = lambda_in(head, depths)
        if captures is not None:
            return is_marked(head[captures:])
        head = head.strip()
        function = re.search(r'((?:\w+::)*)(~?\w+)\s*\(', head)
        if NO_FUNCTION.match(head) or (function is None and not NO_CODE.match(head)):
            return None
        if function is None or is_marked(head):
            return function is not None
        owner, name = function.group(1).split('::')[-2:-1], function.group(2)
        if owner:
            return any(name in self.marked.get(of, ()) for of in (*owner, *self.ancestors(owner[0])))
        return any(self.declares_marked(other, name) for other in self.texts.values())

    def declares_marked(self, text, name):
        for match in re.finditer(rf'\b{name}\s*\(', text):
            if is_marked(re.match(r'[^;{]*', text[end_of(text, match.end() - 1):]).group()):
                return True
        return False

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
    tree.check_guards()
    print('\n'.join(tree.complaints), end='\n' if tree.complaints else '')
    sys.exit(bool(tree.complaints))


main()
