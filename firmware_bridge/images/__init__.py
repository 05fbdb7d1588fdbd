"""Firmware images: core, port and policy compiled for a board, with the image's own hash inside."""

from firmware_bridge.images.building import BROKEN, FixedSetting, build_image
from firmware_bridge.images.compiling import (
    BARE_FLAGS,
    LINK_FLAGS,
    compile_image,
    image_flags,
    image_sources,
    run_compiler,
)
from firmware_bridge.images.image import HASH_BYTES, IMAGE_JSON, MARK, Image, load_image, patched
from firmware_bridge.images.policy import FORMATS, check_fits, policy_source, table_bytes
from firmware_bridge.images.source import check_source, derived

__all__ = [
    "BARE_FLAGS", "BROKEN", "FORMATS", "HASH_BYTES", "IMAGE_JSON", "LINK_FLAGS", "MARK", "FixedSetting", "Image",
    "build_image", "check_fits", "check_source", "compile_image", "derived", "image_flags", "image_sources",
    "load_image", "patched", "policy_source", "run_compiler", "table_bytes",
]  # fmt: skip
