/* The least backend for Triton: OUTPUTn is INPUTn. What it serves costs Triton its front end and no
 * more. The few functions of its backend API are declared here, since the wheel brings no headers;
 * handles are opaque, and errors, which mean a wrong config here, end the process. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void *Handle;

Handle TRITONBACKEND_RequestInputCount(Handle request, uint32_t *count);
Handle TRITONBACKEND_RequestInputByIndex(Handle request, uint32_t index, Handle *input);
Handle TRITONBACKEND_InputProperties(Handle input, const char **name, int *datatype,
                                     const int64_t **shape, uint32_t *dims, uint64_t *bytes,
                                     uint32_t *buffers);
Handle TRITONBACKEND_InputBuffer(Handle input, uint32_t index, const void **memory,
                                 uint64_t *bytes, int *memory_type, int64_t *memory_id);
Handle TRITONBACKEND_ResponseNew(Handle *response, Handle request);
Handle TRITONBACKEND_ResponseOutput(Handle response, Handle *output, const char *name,
                                    int datatype, const int64_t *shape, uint32_t dims);
Handle TRITONBACKEND_OutputBuffer(Handle output, void **memory, uint64_t bytes, int *memory_type,
                                  int64_t *memory_id);
Handle TRITONBACKEND_ResponseSend(Handle response, uint32_t flags, Handle error);
Handle TRITONBACKEND_RequestRelease(Handle request, uint32_t flags);

enum { FINAL_RESPONSE = 1, RELEASE_ALL = 1 };

static void must(Handle error) {
  if (error) {
    fputs("identity backend: the config does not fit the request\n", stderr);
    abort();
  }
}

static void copy_tensor(Handle request, Handle response, uint32_t index) {
  Handle input, output;
  const char *name;
  const int64_t *shape;
  int datatype, memory_type = 0;
  int64_t memory_id = 0;
  uint32_t dims, buffers;
  uint64_t bytes;
  char output_name[64];
  void *target;

  must(TRITONBACKEND_RequestInputByIndex(request, index, &input));
  must(TRITONBACKEND_InputProperties(input, &name, &datatype, &shape, &dims, &bytes, &buffers));
  snprintf(output_name, sizeof output_name, "OUTPUT%s", name + strlen("INPUT"));
  must(TRITONBACKEND_ResponseOutput(response, &output, output_name, datatype, shape, dims));
  must(TRITONBACKEND_OutputBuffer(output, &target, bytes, &memory_type, &memory_id));
  for (uint32_t buffer = 0; buffer < buffers; buffer++) {
    const void *source;
    uint64_t part;
    memory_type = 0;
    memory_id = 0;
    must(TRITONBACKEND_InputBuffer(input, buffer, &source, &part, &memory_type, &memory_id));
    memcpy(target, source, part);
    target = (char *)target + part;
  }
}

__attribute__((visibility("default"))) Handle TRITONBACKEND_ModelInstanceExecute(
    Handle instance, Handle *requests, uint32_t count) {
  (void)instance;
  for (uint32_t each = 0; each < count; each++) {
    Handle response;
    uint32_t inputs;
    must(TRITONBACKEND_ResponseNew(&response, requests[each]));
    must(TRITONBACKEND_RequestInputCount(requests[each], &inputs));
    for (uint32_t index = 0; index < inputs; index++) copy_tensor(requests[each], response, index);
    must(TRITONBACKEND_ResponseSend(response, FINAL_RESPONSE, NULL));
    must(TRITONBACKEND_RequestRelease(requests[each], RELEASE_ALL));
  }
  return NULL;
}
