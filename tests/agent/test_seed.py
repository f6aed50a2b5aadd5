from __future__ import annotations

import os
from pathlib import Path

import pytest
from moorage_agent.errors import AgentError
from moorage_agent.images.limits import Limits
from moorage_agent.paths import Paths
from moorage_agent.seed import seed
from moorage_agent.volumes import make_volume, volume_keys

KEY = "default/shop/data"


@pytest.fixture
def layers(tmp_path: Path) -> tuple[Path, Path]:
    """Topmost first."""
    top, bottom = tmp_path / "top", tmp_path / "bottom"
    (top / "data/sub").mkdir(parents=True)
    (bottom / "data/sub").mkdir(parents=True)
    return top, bottom


def made(tmp_path: Path, layers: tuple[Path, Path], target: str = "/data") -> Path:
    paths = Paths(f"{tmp_path}/disk", f"{tmp_path}/run")
    paths.make()
    return Path(make_volume(paths, KEY, layers=[str(layer) for layer in layers], target=target))


def test_a_new_volume_has_the_images_files_the_topmost_of_each(tmp_path: Path, layers: tuple[Path, Path]) -> None:
    top, bottom = layers
    (bottom / "data/a").write_text("old")
    (top / "data/a").write_text("new")
    (bottom / "data/sub/b").write_text("deep")
    (bottom / "data/link").symlink_to("/etc/passwd")
    volume = made(tmp_path, layers)
    assert (volume / "a").read_text() == "new"
    assert (volume / "sub/b").read_text() == "deep"
    assert os.readlink(volume / "link") == "/etc/passwd"


def test_a_new_volume_belongs_to_whom_the_images_directory_belongs(tmp_path: Path, layers: tuple[Path, Path]) -> None:
    top, _ = layers
    if os.geteuid() != 0:
        pytest.skip("needs root to give files away")
    os.chown(top / "data", 472, 473)
    os.chmod(top / "data", 0o1770)
    status = os.stat(made(tmp_path, layers))
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (472, 473, 0o1770)


@pytest.mark.parametrize("target", ["/absent", "/data/link", "/link/x", "/data/../../etc"])
def test_a_place_the_image_does_not_have_or_only_links_to_gives_an_empty_volume(
    tmp_path: Path, layers: tuple[Path, Path], target: str
) -> None:
    top, _ = layers
    (top / "data/link").symlink_to("/etc")
    (top / "link").symlink_to("/etc")
    assert os.listdir(made(tmp_path, layers, target)) == []


def test_set_user_id_bits_and_devices_stay_behind(tmp_path: Path, layers: tuple[Path, Path]) -> None:
    top, _ = layers
    (top / "data/su").write_text("x")
    os.chmod(top / "data/su", 0o4755)
    os.mkfifo(top / "data/pipe")
    volume = made(tmp_path, layers)
    assert sorted(os.listdir(volume)) == ["su", "sub"]
    assert os.stat(volume / "su").st_mode & 0o7777 == 0o755


def test_a_volume_that_exists_is_left_as_it_is(tmp_path: Path, layers: tuple[Path, Path]) -> None:
    volume = made(tmp_path, layers)
    (volume / "mine").touch()
    (layers[0] / "data/later").touch()
    assert sorted(os.listdir(made(tmp_path, layers))) == ["mine", "sub"]


def test_a_half_made_volume_is_no_volume(tmp_path: Path, layers: tuple[Path, Path]) -> None:
    paths = Paths(f"{tmp_path}/disk", f"{tmp_path}/run")
    paths.make()
    Path(paths.volumes, "default/shop/.data/rest").mkdir(parents=True)
    assert volume_keys(paths) == ()
    assert os.listdir(made(tmp_path, layers)) == ["sub"]


def test_holes_of_the_images_files_take_no_room(tmp_path: Path, layers: tuple[Path, Path]) -> None:
    with (layers[0] / "data/sparse").open("wb") as file:
        file.seek(1 << 30)
        file.write(b"data")
        file.truncate(8 << 30)
    copy = made(tmp_path, layers) / "sparse"
    assert copy.stat().st_size == 8 << 30
    assert copy.stat().st_blocks * 512 < 1 << 20
    with copy.open("rb") as file:
        file.seek((1 << 30) - 1)
        assert file.read(6) == b"\0data\0"


@pytest.mark.parametrize(("limits", "code"), [(Limits(unpacked=5 << 20), "InvalidVolume"), (Limits(reserve=1 << 60), "DiskFull")])
def test_a_volume_that_would_begin_with_too_much_is_refused(tmp_path: Path, layers: tuple[Path, Path], limits: Limits, code: str) -> None:
    (layers[0] / "data/file").write_bytes(bytes(2 << 20))
    for number in range(3):
        os.link(layers[0] / "data/file", layers[0] / f"data/name{number}")
    (tmp_path / "volume").mkdir()
    with pytest.raises(AgentError, match="cannot begin with what the image has at /data") as refused:
        seed(str(tmp_path / "volume"), [str(layer) for layer in layers], "/data", limits=limits)
    assert refused.value.code == code


def test_a_volume_that_could_not_be_made_leaves_nothing(tmp_path: Path, layers: tuple[Path, Path]) -> None:
    with pytest.raises(FileNotFoundError):
        made(tmp_path, (*layers, tmp_path / "absent"))  # type: ignore[arg-type]
    assert os.listdir(f"{tmp_path}/disk/volumes/default/shop") == []
