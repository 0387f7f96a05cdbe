"""What the program prints as JSON: inspections and audits."""

import pathlib

import luksmith
import pytest

DOMAIN = """<domain type='kvm'><name>vm</name><devices><disk type='file' device='disk'>
<source file='/images/vm.raw'/><target dev='vda' bus='virtio'/></disk></devices></domain>
"""


def test_an_image_is_inspected(folder, volume):
    volume.close()
    report = luksmith.inspect("disk.img", "luks2")
    assert (report["verdict"], report["findings"]) == ("accept", [])
    assert luksmith.inspect("disk.img", "luks", max_size=512)["verdict"] == "policy"
    hostile = bytearray(b"\xff" * (1 << 16))
    hostile[:8] = b"LUKS\xba\xbe\0\2"
    pathlib.Path("hostile.img").write_bytes(hostile)
    report = luksmith.inspect(pathlib.Path("hostile.img"), "luks2")
    assert report["verdict"] == "reject" and report["findings"][0]["id"]
    with pytest.raises(luksmith.ParameterError, match="qcow2"):
        luksmith.inspect("disk.img", "vmkd")
    pathlib.Path("link.img").symlink_to("disk.img")
    with pytest.raises(luksmith.Error):
        luksmith.inspect("link.img", "luks2")
    assert luksmith.inspect("link.img", "luks2", follow_symlinks=True)["verdict"] == "accept"


def test_a_domain_is_audited(folder):
    pathlib.Path("vm.xml").write_text(DOMAIN)
    report = luksmith.audit(["vm.xml"], images=False)
    assert report["verdict"] == "findings"
    assert all(finding["origin"] == "vm.xml" for finding in report["findings"])
    with pytest.raises(luksmith.StorageError):
        luksmith.audit(["no.xml"])
    with pytest.raises(luksmith.StorageError):
        luksmith.audit([], host=True, root=folder)
