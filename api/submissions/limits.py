"""The limits that one submission is held to."""

from __future__ import annotations

from dataclasses import dataclass

from promptmill.settings import Settings


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, of the body after decompression. max_rows: rows of the body.
    max_images: images after `n`, products and templates. document_bytes: a JSON
    document, which is held in memory as a whole."""

    max_rows: int = 10_000_000
    max_images: int = 50_000_000
    max_body_bytes: int = 16_000_000_000
    max_line_bytes: int = 1_000_000
    document_bytes: int = 16_000_000
    max_n: int = 10_000

    @staticmethod
    def from_settings(settings: Settings) -> Limits:
        return Limits(
            max_rows=settings.max_rows,
            max_images=settings.max_queued_images_per_tenant,
            max_body_bytes=settings.max_body_bytes,
            max_line_bytes=settings.max_line_bytes,
        )
