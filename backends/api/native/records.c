// Makes instances of slotted classes without a line of Python.
//
// A class in Python is called through `type`, which makes an empty instance and runs `__init__` in
// a frame of its own. For classes of which each request makes some that is a quarter of its time.
// Here the class's own vectorcall fills the slots in place. Whatever is not a plain call (a field
// that is missing, given twice or not known) goes the usual way, which says what is wrong.
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <structmember.h>

enum { MOST_FIELDS = 32, MOST_CLASSES = 256 };

typedef struct {
    PyObject *name;    // interned; NULL: no argument sets it
    Py_ssize_t offset; // of the slot in an instance
    PyObject *given;   // what it is without an argument; NULL: it needs one, or is set later
    int is_factory;    // whether `given` is called for that
} Field;

typedef struct {
    PyTypeObject *type; // owned: neither goes before the process does
    Py_ssize_t count;
    Py_ssize_t num_arguments; // of the fields, which come first
    Field fields[MOST_FIELDS];
} Record;

// By the address of their classes, open addressing: read under the interpreter's lock, never
// shrinks.
static Record *records[2 * MOST_CLASSES];
static size_t num_records;

static Record **place_of(const void *type) {
    size_t place = ((size_t)type >> 4) % (2 * MOST_CLASSES);
    while (records[place] != NULL && records[place]->type != type) {
        place = (place + 1) % (2 * MOST_CLASSES);
    }
    return &records[place];
}

static PyObject *the_usual_way(PyObject *type, PyObject *const *values, size_t count,
                               PyObject *names) {
    PyObject *arguments = PyTuple_New((Py_ssize_t)count), *named = NULL, *made = NULL;
    if (arguments == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        PyTuple_SET_ITEM(arguments, (Py_ssize_t)i, Py_NewRef(values[i]));
    }
    Py_ssize_t num_named = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    if (num_named && (named = PyDict_New()) == NULL) {
        goto done;
    }
    for (Py_ssize_t i = 0; i < num_named; i++) {
        if (PyDict_SetItem(named, PyTuple_GET_ITEM(names, i), values[(Py_ssize_t)count + i])) {
            goto done;
        }
    }
    made = PyType_Type.tp_call(type, arguments, named);
done:
    Py_DECREF(arguments);
    Py_XDECREF(named);
    return made;
}

static Py_ssize_t field_named(const Record *record, PyObject *name) {
    for (Py_ssize_t i = 0; i < record->num_arguments; i++) {
        if (record->fields[i].name == name) { // names in code are interned, too
            return i;
        }
    }
    return -1;
}

static PyObject *make(PyObject *callable, PyObject *const *values, size_t flags, PyObject *names) {
    const Record *record = *place_of(callable);
    Py_ssize_t count = PyVectorcall_NARGS(flags);
    Py_ssize_t num_named = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    PyObject *found[MOST_FIELDS] = {NULL}; // borrowed
    if (count > record->num_arguments) {
        return the_usual_way(callable, values, (size_t)count, names);
    }
    memcpy(found, values, (size_t)count * sizeof(*found));
    for (Py_ssize_t i = 0; i < num_named; i++) {
        Py_ssize_t place = field_named(record, PyTuple_GET_ITEM(names, i));
        if (place < 0 || found[place] != NULL) {
            return the_usual_way(callable, values, (size_t)count, names);
        }
        found[place] = values[count + i];
    }
    for (Py_ssize_t i = count; i < record->num_arguments; i++) {
        if (found[i] == NULL && record->fields[i].given == NULL) {
            return the_usual_way(callable, values, (size_t)count, names);
        }
    }
    PyObject *made = record->type->tp_alloc(record->type, 0);
    if (made == NULL) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < record->count; i++) {
        const Field *field = &record->fields[i];
        PyObject *value = found[i];
        if (value != NULL) {
            Py_INCREF(value);
        } else if (field->given == NULL) {
            continue;
        } else if (!field->is_factory) {
            value = Py_NewRef(field->given);
        } else if ((value = PyObject_CallNoArgs(field->given)) == NULL) {
            Py_DECREF(made);
            return NULL;
        }
        *(PyObject **)((char *)made + field->offset) = value;
    }
    return made;
}

static int read_field(PyTypeObject *type, PyObject *told, Field *field) {
    PyObject *name, *given;
    int is_argument;
    if (!PyArg_ParseTuple(told, "UOpp", &name, &given, &field->is_factory, &is_argument)) {
        return -1;
    }
    PyObject *slot = PyObject_GetAttr((PyObject *)type, name);
    if (slot == NULL) {
        return -1;
    }
    int is_slot = Py_IS_TYPE(slot, &PyMemberDescr_Type);
    const PyMemberDef *member = is_slot ? ((PyMemberDescrObject *)slot)->d_member : NULL;
    Py_DECREF(slot);
    if (member == NULL || member->type != T_OBJECT_EX || (member->flags & READONLY)) {
        PyErr_Format(PyExc_TypeError, "field '%U' of %s is no slot", name, type->tp_name);
        return -1;
    }
    field->offset = member->offset;
    if (is_argument) {
        field->name = Py_NewRef(name);
        PyUnicode_InternInPlace(&field->name);
    }
    field->given = given == Py_Ellipsis ? NULL : Py_NewRef(given);
    return 0;
}

static PyObject *quicken(PyObject *module, PyObject *arguments) {
    (void)module;
    PyTypeObject *type;
    PyObject *fields;
    if (!PyArg_ParseTuple(arguments, "O!O!", &PyType_Type, &type, &PyTuple_Type, &fields)) {
        return NULL;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(fields);
    if (count > MOST_FIELDS || num_records >= MOST_CLASSES || type->tp_itemsize ||
        !(type->tp_flags & Py_TPFLAGS_HEAPTYPE) || *place_of(type) != NULL) {
        PyErr_Format(PyExc_TypeError, "%s cannot be made here", type->tp_name);
        return NULL;
    }
    Record *record = PyMem_Calloc(1, sizeof(*record));
    if (record == NULL) {
        return PyErr_NoMemory();
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (read_field(type, PyTuple_GET_ITEM(fields, i), &record->fields[i])) {
            for (Py_ssize_t j = 0; j <= i; j++) {
                Py_XDECREF(record->fields[j].name);
                Py_XDECREF(record->fields[j].given);
            }
            PyMem_Free(record);
            return NULL;
        }
        record->num_arguments += record->fields[i].name != NULL;
    }
    record->count = count;
    record->type = (PyTypeObject *)Py_NewRef((PyObject *)type);
    *place_of(type) = record;
    num_records++;
    type->tp_vectorcall = make;
    Py_RETURN_NONE;
}

// As `bisect.bisect_left` finds the bucket: a value at a bound is below it.
static PyObject *tally(PyObject *module, PyObject *const *given, Py_ssize_t count) {
    (void)module;
    long long total = 0;
    if (count != 3 || !PyList_Check(given[0]) || !PyTuple_Check(given[1]) ||
        !PyList_Check(given[2]) || PyList_GET_SIZE(given[0]) != PyTuple_GET_SIZE(given[1]) + 1) {
        PyErr_SetString(PyExc_TypeError, "tally(counts, bounds, values), one count more");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(given[2]); i++) {
        long long value = PyLong_AsLongLong(PyList_GET_ITEM(given[2], i));
        Py_ssize_t bucket = 0, num_bounds = PyTuple_GET_SIZE(given[1]);
        while (bucket < num_bounds &&
               PyLong_AsLongLong(PyTuple_GET_ITEM(given[1], bucket)) < value) {
            bucket++;
        }
        long long counted = PyLong_AsLongLong(PyList_GET_ITEM(given[0], bucket));
        if (PyErr_Occurred()) {
            return NULL;
        }
        PyObject *next = PyLong_FromLongLong(counted + 1);
        if (next == NULL || PyList_SetItem(given[0], bucket, next)) {
            return NULL;
        }
        total += value;
    }
    return PyLong_FromLongLong(total);
}

static PyMethodDef methods[] = {
    {"quicken", quicken, METH_VARARGS,
     "quicken(class, fields): calls of the class fill its slots here. Of each field its name, "
     "what\n"
     "it is without an argument (...: nothing), whether that is called to make it, and whether an\n"
     "argument may set it: those that one may come first, in the order of arguments."},
    {"tally", (PyCFunction)(void (*)(void))tally, METH_FASTCALL,
     "tally(counts, bounds, values): one more in the bucket of each value; returns their sum."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_records", NULL, -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__records(void) {
    return PyModule_Create(&definition);
}
