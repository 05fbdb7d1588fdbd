"""Core, port and policy compiled for a board.

Images are kept in a cache keyed by all that goes in. The same sources, policy and compiler give the same bytes from any
folder.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from envs.errors import UserError
from export.chain import Link, extend
from firmware_bridge.build import CORE, FIRMWARE, WARNINGS, cache_dir, sources
from firmware_bridge.images.image import HASH_BYTES, IMAGE_JSON, MARK, Image, load_image, patched
from firmware_bridge.targets import CORTEX_M, Target, cross
from sea_dbs.files import sha256_file, writing

BARE_FLAGS = ("-O2", "-ffreestanding", "-ffunction-sections", "-fdata-sections", "-ffp-contract=off")
LINK_FLAGS = ("-nostartfiles", "-specs=nano.specs", "-Wl,--gc-sections", "-Wl,--build-id=none", "-Wl,--strip-debug")
_HOST = ("-O2", "-ffp-contract=off", "-Wl,--build-id=none")


def image_sources(target: Target) -> list[Path]:
    """Every source and header of a board's firmware without a policy."""
    return sources(CORE, *target.folders)


def image_flags(target: Target, model_hash: bytes | None) -> tuple[str, ...]:
    """Compiler flags of a board's firmware; no path of this machine enters the image."""
    flags = [*WARNINGS, *(_HOST if target.is_host else (*target.flags, *BARE_FLAGS, *LINK_FLAGS))]
    if not target.is_host:
        flags += ["-T", str(target.folder / "link.ld"), "-L", str(CORTEX_M)]
    if target.virtual:
        flags.append("-DSEA_VIRTUAL")
    if model_hash is not None:
        flags += ["-DSEA_WITH_POLICY", f'-DSEA_MODEL_HASH="{model_hash.hex()}"']
    for folder in (CORE, *target.folders):
        flags += ["-I", str(folder)]
    return (*flags, f"-ffile-prefix-map={FIRMWARE}=.")


def compile_image(
    target: Target,
    policy: Path | None,
    model_hash: bytes | None,
    *,
    format: str | None = None,
    links: tuple[Link, ...] = (),
    test_build: bool = False,
    steady: bool = False,
    defines: tuple[str, ...] = (),
) -> Image:
    """The image of a board with one sea_policy.c, wherever it stands: whoever calls this answers for that file.

    Raises:
        UserError: no compiler, or a failed compilation.
    """
    compiler = target.compiler()
    flags = image_flags(target, model_hash)
    flags += (("-DSEA_TEST_BUILD",) if test_build else ()) + (("-DSEA_STEADY",) if steady else ()) + defines
    files = image_sources(target)
    digest = hashlib.sha256("\0".join((compiler, compiler_version(compiler), *flags)).encode())
    for path in [*files, *target.folder.glob("*.ld"), *CORTEX_M.glob("*.ld"), *([policy] if policy else [])]:
        digest.update(path.name.encode() + b"\0" + bytes.fromhex(sha256_file(path)))
    digest.update(json.dumps([link.as_json() for link in links]).encode())
    folder = cache_dir() / "images" / digest.hexdigest()[:24]
    if not (folder / IMAGE_JSON).is_file():
        with writing(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            made = Path(tempfile.mkdtemp(prefix=".build-", dir=folder.parent))
            try:
                _build(target, compiler, flags, files, policy, model_hash, format, links, made)
                with suppress(OSError):  # somebody else has just built the same
                    made.rename(folder)
            finally:
                shutil.rmtree(made, ignore_errors=True)
    return load_image(folder)


def compiler_version(compiler: str) -> str:
    """First line of ``--version``."""
    done = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.splitlines()[0] if done.stdout else "unknown"


def run_compiler(compiler: str, arguments: list[str], what: str) -> None:
    """One call of a compiler or its tools.

    Raises:
        UserError: it failed; its first error is named.
    """
    done = subprocess.run([compiler, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.splitlines()
        telling = [line for line in lines if "overflowed by" in line or "too little RAM" in line]
        telling += [line for line in lines if "error" in line] + lines + [str(done.returncode)]
        raise UserError(f"{Path(compiler).name} could not build {what}: {telling[0].strip()}")


def sizes(target: Target, path: Path) -> tuple[int, int]:
    """(flash, RAM) of an object or program: text + data, data + bss."""
    tool = "size" if target.is_host else cross("size")
    done = subprocess.run([tool, str(path)], capture_output=True, text=True, check=True)
    text, data, bss = (int(field) for field in done.stdout.splitlines()[1].split()[:3])
    return text + data, data + bss


def _build(
    target: Target,
    compiler: str,
    flags: tuple[str, ...],
    files: list[Path],
    policy: Path | None,
    model_hash: bytes | None,
    format: str | None,
    links: tuple[Link, ...],
    out: Path,
) -> None:
    elf, binary = out / "sea-board.elf", out / "sea-board.bin"
    units = [str(path) for path in files if path.suffix == ".c"]
    policy_sizes = (0, 0)
    if policy is not None:
        units.append(str(policy))
        flags = (*flags, f"-ffile-prefix-map={policy.parent}=policy")
        policy_sizes = policy_size(target, policy)
    run_compiler(compiler, [*flags, "-o", str(elf), *units], f"the board {target.name}")
    flash, ram = sizes(target, elf)
    if target.is_host:
        loaded, sha256 = patched(elf.read_bytes())
        elf.write_bytes(loaded)
        elf.chmod(0o755)
        binary.symlink_to(elf.name)
    else:
        run_compiler(cross("objcopy"), ["-O", "binary", str(elf), str(binary)], "the image")
        loaded, sha256 = patched(binary.read_bytes())
        binary.write_bytes(loaded)
        whole = elf.read_bytes()
        at = whole.index(MARK) + len(MARK)
        elf.write_bytes(whole[:at] + bytes.fromhex(sha256) + whole[at + HASH_BYTES :])
    image = Image(
        board=target.name,
        format=format,
        sha256=sha256,
        model_hash=None if model_hash is None else model_hash.hex(),
        flash_bytes=flash,
        ram_bytes=ram,
        policy_flash_bytes=policy_sizes[0],
        policy_ram_bytes=policy_sizes[1],
        compiler=compiler_version(compiler),
        steady="-DSEA_STEADY" in flags,
        folder=out,
    )
    facts: dict[str, Any] = {name: value for name, value in asdict(image).items() if name != "folder"}
    if links:
        facts["chain"] = [link.as_json() for link in (*links, extend(links[-1].hash, "image", {"image": sha256}))]
    (out / IMAGE_JSON).write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")


def policy_size(target: Target, policy: Path) -> tuple[int, int]:
    """(flash, RAM) of a generated policy alone, compiled as in the image.

    Raises:
        UserError: no compiler, or a failed compilation.
    """
    flags = _HOST[:-1] if target.is_host else (*target.flags, *BARE_FLAGS)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "policy.o"
        run_compiler(
            target.compiler(), [*WARNINGS, *flags, "-I", str(CORE), "-c", "-o", str(made), str(policy)], "the policy"
        )
        return sizes(target, made)
