"""Firmware images: core, port and policy compiled for a board, with the image's own hash inside.

The hash is the SHA-256 of what is loaded (``sea-board.bin``; for the host board the program file) while the 32 bytes of
its build field are zero; it is then written into that field, and HELLO_ACK carries it. The same sources, policy and
compiler give the same bytes from any folder.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from envs.errors import UserError
from export.chain import Chain, Link, extend
from firmware_bridge.build import CORE, FIRMWARE, WARNINGS, cache_dir, sources
from firmware_bridge.limits import LIMITS, judge
from firmware_bridge.targets import (
    CORTEX_M,
    FIRMWARE_FLASH,
    FIRMWARE_RAM,
    STACK_BYTES,
    Target,
    cross,
    find_target,
)
from sea_dbs.files import atomic_write, sha256_file, writing

MARK = b"sea-dbs.build->\0"  # ports/common/image.c: the 32 bytes after it hold the hash
HASH_BYTES = 32
IMAGE_JSON = "image.json"
BROKEN = ("ramp", "lease", "balance")  # what a broken test build leaves out
FORMATS = ("int8", "fp32", "fp16")
BARE_FLAGS = ("-O2", "-ffreestanding", "-ffunction-sections", "-fdata-sections", "-ffp-contract=off")
LINK_FLAGS = ("-nostartfiles", "-specs=nano.specs", "-Wl,--gc-sections", "-Wl,--build-id=none", "-Wl,--strip-debug")
_HOST = ("-O2", "-ffp-contract=off", "-Wl,--build-id=none")
_ELEMENT_BYTES = {
    "int8_t": 1, "uint8_t": 1, "int16_t": 2, "uint16_t": 2, "_Float16": 2, "__fp16": 2,
    "int32_t": 4, "uint32_t": 4, "float": 4, "int64_t": 8, "uint64_t": 8,
}  # fmt: skip
_ARRAY = re.compile(
    rf"^[ \t]*static\s+(?:_Alignas\(\d+\)\s+)?(const\s+)?({'|'.join(_ELEMENT_BYTES)}|number_t)\s+\w+"
    r"((?:\s*\[[0-9 *+u]+\])+)",
    re.M,
)
_NUMBER = re.compile(r"typedef (\w+) number_t;")  # the float formats' one type


class FixedSetting(NamedTuple):
    """A setting for FALLBACK, approved before the image is built."""

    amplitude_uA: int
    width_us: int
    period_us: int


@dataclass(frozen=True)
class Image:
    """A built image. Sizes in bytes: flash = text + data, RAM = data + bss without the stack.

    A ``steady`` one never sleeps, so that an emulator can count its time in instructions (`QemuBoard`).
    """

    board: str
    format: str | None  # of the policy; None: no policy
    sha256: str
    model_hash: str | None
    flash_bytes: int
    ram_bytes: int
    policy_flash_bytes: int
    policy_ram_bytes: int
    compiler: str
    steady: bool
    folder: Path

    @property
    def elf(self) -> Path:
        """What a debugger and QEMU load; for the host board the program."""
        return self.folder / "sea-board.elf"

    @property
    def bin(self) -> Path:
        """What is flashed, byte for byte; for the host board the program."""
        return self.folder / "sea-board.bin"


def policy_source(policy_dir: Path, format: str) -> Path:
    """The C source of a policy in an export folder.

    Raises:
        UserError: an unknown format, or this export holds no such source.
    """
    if format not in FORMATS:
        raise UserError(f"there is no policy format '{format}': choose one of {', '.join(FORMATS)}")
    path = policy_dir / "c" / format / "sea_policy.c"
    if not path.is_file():
        raise UserError(f"there is no {path}: export the run with --targets c and the precision {format}")
    return path


def table_bytes(source: str) -> tuple[int, int]:
    """Bytes of constant tables (flash) and of buffers (RAM) that a generated policy declares at file scope."""
    totals = {True: 0, False: 0}
    number = _NUMBER.search(source)
    sizes = _ELEMENT_BYTES | ({"number_t": _ELEMENT_BYTES[number[1]]} if number else {})
    for const, kind, axes in _ARRAY.findall(source):
        count = 1
        for axis in re.findall(r"\[([0-9 *+u]+)\]", axes):
            factors = [int(factor.strip(" u")) for factor in axis.split("*") if factor.strip(" u").isdigit()]
            for factor in factors:
                count *= factor
        totals[bool(const)] += count * sizes[kind]
    return totals[True], totals[False]


def check_fits(board: str, flash_bytes: int, ram_bytes: int = 0) -> None:
    """Whether a policy's tables and buffers fit beside the firmware, asked before anything is compiled.

    Raises:
        UserError: they do not; says by how much.
    """
    target = find_target(board)
    if target.is_host:
        return
    for name, wanted, firmware in (
        ("flash", flash_bytes, FIRMWARE_FLASH),
        ("RAM", ram_bytes, FIRMWARE_RAM + STACK_BYTES),
    ):
        there = target.memory(name.upper()).size
        if wanted + firmware > there:
            raise UserError(
                f"the policy is too large for {board} by {wanted + firmware - there} bytes: it takes {wanted} bytes of "
                f"{name}, the firmware {firmware}, the board has {there}"
            )


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


def build_image(
    board: str,
    policy_dir: Path | None = None,
    format: str = "int8",
    out_dir: Path | None = None,
    *,
    test_build: bool = False,
    steady: bool = False,
    broken: str | None = None,
    fallback: FixedSetting | None = None,
) -> Image:
    """Compile the firmware of a board, with an export's policy inside if there is one.

    Images are kept in a cache keyed by all that goes in; ``out_dir`` gets copies (sea-board.elf, .bin, image.json).
    ``test_build`` adds the faults that tests inject; ``broken`` (one of BROKEN) leaves a rule of the envelope out, so
    that a checker can be checked. ``fallback`` compiles a fixed setting for FALLBACK in.

    Raises:
        UserError: an unknown board, no compiler, a policy that does not fit, a broken chain, a fixed setting outside a
            limit, a broken build that is no test build, or a failed compilation.
    """
    target = find_target(board)
    chain = None if policy_dir is None else Chain.of_folder(policy_dir)
    policy = None if policy_dir is None else policy_source(policy_dir, format)
    if policy is not None:
        check_fits(board, *table_bytes(policy.read_text()))
    image = compile_image(
        target,
        policy,
        None if chain is None else chain.model_hash,
        format=None if policy is None else format,
        links=() if chain is None else chain.links,
        test_build=test_build,
        steady=steady,
        defines=(*_broken(broken, test_build), *_fallback(fallback)),
    )
    return image if out_dir is None else _copy(image, out_dir)


def _broken(broken: str | None, test_build: bool) -> tuple[str, ...]:
    if broken is None:
        return ()
    if broken not in BROKEN or not test_build:
        raise UserError(f"there is no broken build '{broken}': test builds alone may be one of {', '.join(BROKEN)}")
    return (f"-DSEA_BROKEN_{broken.upper()}",)


def _fallback(fixed: FixedSetting | None) -> tuple[str, ...]:
    if fixed is None:
        return ()
    verdict = judge(fixed.amplitude_uA, fixed.width_us, fixed.period_us, 1, LIMITS["LEASE_MIN_MS"].value)
    if verdict.code is not None or verdict.clamp or not fixed.amplitude_uA:
        raise UserError(
            f"the fixed setting {tuple(fixed)} (µA, µs, µs) for FALLBACK is outside the limits of the board"
        )
    names = ("UA", "WIDTH_US", "PERIOD_US")
    return tuple(f"-DSEA_FALLBACK_{name}={value}" for name, value in zip(names, fixed, strict=True))


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
    """`build_image` for one generated sea_policy.c, wherever it stands.

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


def load_image(folder: Path) -> Image:
    """An image from its image.json.

    Raises:
        UserError: there is none, or it is damaged.
    """
    try:
        facts = json.loads((folder / IMAGE_JSON).read_text())
        return Image(**{name: facts[name] for name in Image.__dataclass_fields__ if name != "folder"}, folder=folder)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"there is no image in {folder}: {error}") from None


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


def patched(data: bytes) -> tuple[bytes, str]:
    """An image with its hash written into the build field, and that hash (hex).

    Raises:
        UserError: the image has no build field, or more than one.
    """
    if data.count(MARK) != 1:
        raise UserError(f"the image holds {data.count(MARK)} build fields instead of one")
    at = data.index(MARK) + len(MARK)
    digest = hashlib.sha256(data[:at] + bytes(HASH_BYTES) + data[at + HASH_BYTES :]).digest()
    return data[:at] + digest + data[at + HASH_BYTES :], digest.hex()


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


def _copy(image: Image, out_dir: Path) -> Image:
    for name in ("sea-board.elf", "sea-board.bin", IMAGE_JSON):
        data = (image.folder / name).read_bytes()
        atomic_write(out_dir / name, lambda stream, data=data: stream.write(data))  # type: ignore[misc]
    if image.board == "host":
        (out_dir / "sea-board.elf").chmod(0o755)
    return load_image(out_dir)
