"""transformers, whole for each thread that asks for it.

Models load in threads at once, and transformers replaces itself in `sys.modules` at the end of its
first import. A thread whose `import transformers` waits for another's gets the module from before
that, which has none of the classes (`findings/transformers-first-import-in-two-threads.sh`);
`import_module` looks again once it has waited. So all that serves models takes it from here.
"""

from importlib import import_module
from types import ModuleType

transformers: ModuleType = import_module("transformers")
