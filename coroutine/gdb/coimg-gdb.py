"""Coroutines for gdb: what each suspended one is waiting in.

    (gdb) source coroutine/gdb/coimg-gdb.py
    (gdb) coimg coroutines          all of them
    (gdb) coimg coroutine NAME      those called so

Works on running programs and on core files. It follows the frame pointers, which all of coimg keeps, from where the context
switch has saved them.
"""
import gdb

# What jump_fcontext() leaves on the stack, by architecture: offsets of the saved frame pointer and return address.
FCONTEXT = {'i386:x86-64': (0x30, 0x38), 'aarch64': (0x90, 0xa0)}
MAX_FRAMES = 200


def word(address):
    pointer = gdb.lookup_type('unsigned long').pointer()
    return int(gdb.Value(address).cast(pointer).dereference())


def frames(suspended):
    """The addresses in each frame of a suspended coroutine, innermost first."""
    try:
        fp_offset, pc_offset = FCONTEXT[gdb.selected_inferior().architecture().name()]
        fp, pc = word(suspended + fp_offset), word(suspended + pc_offset)
        for _ in range(MAX_FRAMES):
            yield pc
            if fp == 0:
                return
            previous, pc = word(fp), word(fp + 8)
            if pc == 0 or (previous != 0 and previous <= fp):
                return
            fp = previous
    except gdb.MemoryError:
        return


def describe(pc):
    """The function and line that a return address leads back to."""
    line = gdb.find_pc_line(pc - 1)
    place = f' at {line.symtab.filename}:{line.line}' if line.symtab else ''
    names = []
    block = gdb.current_progspace().block_for_pc(pc - 1)
    while block is not None and not block.is_static and not block.is_global:
        if block.function is not None:
            names.append(block.function.print_name)
        block = block.superblock
    if not names:
        return gdb.execute(f'info symbol {pc - 1:#x}', to_string=True).split(' in section')[0].strip() + place
    inlined = f' (inlined: {", ".join(names[:-1])})' if names[1:] else ''
    return names[-1] + inlined + place


def coroutines():
    """Each coroutine that lives on some stack, as its Private."""
    stack = gdb.parse_and_eval('coimg::all_stacks')
    private = gdb.lookup_type('coimg::Coroutine::Private').pointer()
    while stack != 0:
        if stack['tenant'] != 0:
            yield stack['tenant'].cast(private).dereference()
        stack = stack['next_of_all']


def show(co):
    entered = 'kEntered' in str(co['state_']['_M_i'])
    scheduled = co['scheduled_by']['_M_b']['_M_p']
    state = 'entered' if entered else f"scheduled by '{scheduled.string()}'" if scheduled != 0 else 'suspended'
    print(f"coroutine '{co['name'].string()}' {int(co.address):#x}, {state}")
    if entered:
        print('    runs, or waits for one that it has entered: see the threads')
        return
    for number, pc in enumerate(frames(int(co['fiber_']['suspended']))):
        function = describe(pc)
        print(f'    #{number:<3} {pc:#018x} in {function}')
        if 'coroutine_main' in function:
            return


class Coimg(gdb.Command):
    """What coimg's coroutine runtime is doing."""

    def __init__(self):
        super().__init__('coimg', gdb.COMMAND_STACK, prefix=True)


class Coroutines(gdb.Command):
    """Print the back trace of every coroutine that is suspended."""

    def __init__(self):
        super().__init__('coimg coroutines', gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        found = list(coroutines())
        for co in found:
            show(co)
        print(f'{len(found)} coroutines')


class OneCoroutine(gdb.Command):
    """Print the back trace of the coroutines with the name given."""

    def __init__(self):
        super().__init__('coimg coroutine', gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        for co in coroutines():
            if co['name'].string() == argument.strip():
                show(co)


Coimg()
Coroutines()
OneCoroutine()
