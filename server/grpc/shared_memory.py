"""The RPCs of the system and CUDA shared memory extensions."""

from google.protobuf.message import Message

from trivet.protos import grpc_service_pb2 as pb
from trivet.server.auth.restricted import Api
from trivet.server.auth.scopes import Scope
from trivet.server.grpc.handlers import plain
from trivet.server.grpc.transport import Rows, Unary
from trivet.server.shared_memory.system import SharedMemory


class SharedMemoryRpcs:
    """Registers, lists and forgets regions."""

    def __init__(self, shared_memory: SharedMemory) -> None:
        self._regions = shared_memory

    def rows(self, prefix: str) -> Rows:
        """By full method path; `prefix` is the service's."""
        answers = {
            "SystemSharedMemoryStatus": plain(pb.SystemSharedMemoryStatusRequest, self._status),
            "SystemSharedMemoryRegister": plain(
                pb.SystemSharedMemoryRegisterRequest, self._register
            ),
            "SystemSharedMemoryUnregister": plain(
                pb.SystemSharedMemoryUnregisterRequest, self._unregister
            ),
            "CudaSharedMemoryStatus": plain(pb.CudaSharedMemoryStatusRequest, self._cuda_status),
            "CudaSharedMemoryRegister": plain(
                pb.CudaSharedMemoryRegisterRequest, self._cuda_register
            ),
            "CudaSharedMemoryUnregister": plain(
                pb.CudaSharedMemoryUnregisterRequest, self._cuda_unregister
            ),
        }
        return {
            prefix + name: Unary(handle, Scope.ADMIN, Api.SHARED_MEMORY)
            for name, handle in answers.items()
        }

    def _status(self, request: pb.SystemSharedMemoryStatusRequest) -> Message:
        answer = pb.SystemSharedMemoryStatusResponse()
        for region in self._regions.status(request.name or None):
            status = answer.regions[region.name]
            status.name, status.key = region.name, region.key
            status.offset, status.byte_size = region.offset, region.byte_size
        return answer

    def _register(self, request: pb.SystemSharedMemoryRegisterRequest) -> Message:
        self._regions.register(request.name, request.key, request.offset, request.byte_size)
        return pb.SystemSharedMemoryRegisterResponse()

    def _unregister(self, request: pb.SystemSharedMemoryUnregisterRequest) -> Message:
        self._regions.unregister(request.name or None)
        return pb.SystemSharedMemoryUnregisterResponse()

    def _cuda_status(self, request: pb.CudaSharedMemoryStatusRequest) -> Message:
        answer = pb.CudaSharedMemoryStatusResponse()
        for region in self._regions.cuda_status(request.name or None):
            status = answer.regions[region.name]
            status.name, status.device_id = region.name, region.device_id
            status.byte_size = region.byte_size
        return answer

    def _cuda_register(self, request: pb.CudaSharedMemoryRegisterRequest) -> Message:
        self._regions.register_cuda(
            request.name, request.raw_handle, request.device_id, request.byte_size
        )
        return pb.CudaSharedMemoryRegisterResponse()

    def _cuda_unregister(self, request: pb.CudaSharedMemoryUnregisterRequest) -> Message:
        self._regions.unregister_cuda(request.name or None)
        return pb.CudaSharedMemoryUnregisterResponse()
