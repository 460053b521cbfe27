"""Devices of pods and of claims from the kubelet's pod resources, and the intervals of pods."""

import socket
import struct
import threading

import pytest

from powerhall.runtime.errors import Retryable
from powerhall_agent.attribution.collect import Attribution
from powerhall_agent.attribution.pod_resources import list_pods, parse_pods
from powerhall_agent.base.gpu_snapshot import GpuSnapshot
from rigs.job_host import gpus

POD = "11111111-2222-3333-4444-555555555555"


def field(number, value):
    data = value.encode() if isinstance(value, str) else value
    length = len(data)
    prefix = bytes([number << 3 | 2])
    while length > 127:
        prefix += bytes([length & 127 | 128])
        length >>= 7
    return prefix + bytes([length]) + data


def claim(driver, device, cdi=()):
    """A dynamic resource with one device, as the pod-resources API v1 writes it."""
    inside = b"".join(field(1, field(1, name)) for name in cdi)
    inside += field(2, driver) + field(3, "gn01") + field(4, device)
    return field(5, field(2, "one-gpu") + field(3, "ml") + field(4, inside))


def claimed(*pods):
    return b"".join(
        field(1, field(1, name) + field(2, "ml") + field(3, field(1, "main") + b"".join(claims)))
        for name, claims in pods
    )


def test_devices_of_dra_claims_are_read():
    one = "MIG-01234567-89ab-cdef-0123-456789abcdef"
    message = claimed(
        ("a", [claim("gpu.nvidia.com", "gpu-0", ["k8s.gpu.nvidia.com/claim=6f0e-gpu-0"])]),
        ("b", [claim("gpu.nvidia.com", "gpu-1-mig-19-0-1", [f"k8s.gpu.nvidia.com/device={one}"])]),
        ("c", [claim("gpu.nvidia.com", "gpu-2"), claim("gpu.nvidia.com", "gpu-3")]),
        ("d", [claim("dra.example.com", "gpu-4"), claim("evil-nvidia.com", "gpu-5")]),
        ("e", [claim("gpu.nvidia.com", "gpu-0")]),  # shares the claim of a
    )
    assert parse_pods(message) == {
        "gpu-0": "ml/a", one: "ml/b", "gpu-2": "ml/c", "gpu-3": "ml/c", "gpu-0::ml/e": "ml/e"
    }  # fmt: skip


def response(pods):
    return b"".join(
        field(1, field(1, pod) + field(2, space) + field(3, field(1, "main") + field(
            2, field(1, resource) + b"".join(field(2, device) for device in devices))))
        for space, pod, resource, devices in pods
    )  # fmt: skip


PODS = response(
    [("ml", "train-0", "nvidia.com/gpu", ["GPU-0", "GPU-1"]), ("ml", "serve", "nvidia.com/mig-1g.10gb", ["MIG-7"]),
     ("sys", "fpga", "intel.com/fpga", ["F-0"])]
)  # fmt: skip


def test_kubelet_answer_is_read_by_device():
    assert parse_pods(PODS) == {"GPU-0": "ml/train-0", "GPU-1": "ml/train-0", "MIG-7": "ml/serve"}


def test_kubelet_answer_that_is_cut_off_is_refused():
    with pytest.raises(ValueError, match="cut off"):
        parse_pods(PODS[:-3])


@pytest.fixture
def kubelet(tmp_path):
    """An HTTP/2 server of one gRPC answer; the answer is split over frames and between settings and pings."""
    path = tmp_path / "kubelet.sock"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    box = {"frames": None, "asked": b""}

    def frame(kind, flags, stream, payload=b""):
        return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload

    def serve():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                box["asked"] = connection.recv(65536)
                message = bytes(1) + struct.pack(">I", len(PODS)) + PODS
                good = (
                    frame(4, 0, 0) + frame(6, 0, 0, b"12345678") + frame(1, 4, 1, b"\x88")
                    + frame(0, 0, 1, message[:20]) + frame(0, 8, 1, b"\x03" + message[20:] + b"pad")
                    + frame(1, 5, 1, b"\x00\x0bgrpc-status\x010")
                )  # fmt: skip
                connection.sendall(box["frames"] or good)
                connection.settimeout(0.2)
                try:
                    while connection.recv(65536):
                        pass
                except OSError:
                    pass

    threading.Thread(target=serve, daemon=True).start()
    yield path, box, frame
    server.close()


def test_kubelet_is_asked_by_grpc_over_its_socket(kubelet):
    path, box, _ = kubelet
    assert list_pods(path)["GPU-1"] == "ml/train-0"
    assert box["asked"].startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert b"/v1.PodResourcesLister/List" in box["asked"]


def test_pods_replace_the_jobs_found_on_the_host(host, kubelet):
    host.process(7, f"0::/kubepods/pod{POD}/x")
    attribution = Attribution({"node": "n"}, host.jobs(), lambda: gpus(pids=(7,)), kubelet=kubelet[0])
    assert {record.fields["job"] for record in attribution.observe(5.0)} == {"ml/train-0"}


def test_pods_on_mig_instances_share_their_gpu(host, kubelet):
    shared = {0: GpuSnapshot("GPU-9", "00000000:01:00.0", (), 0.0, ("MIG-7", "GPU-0"))}
    attribution = Attribution({"node": "n"}, host.jobs(), lambda: shared, kubelet=kubelet[0])
    assert {record.fields["job"] for record in attribution.observe(5.0)} == {"ml/serve", "ml/train-0"}


def test_kubelet_that_refuses_or_answers_garbage_is_retryable(kubelet, tmp_path):
    path, box, frame = kubelet
    for frames in (frame(3, 0, 1, bytes(4)), frame(7, 0, 0, bytes(8)), b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0"):
        box["frames"] = frames
        with pytest.raises(Retryable, match="pod resources cannot be read"):
            list_pods(path, timeout_s=1.0)
    with pytest.raises(Retryable):
        list_pods(tmp_path / "none.sock")
