"""The certificates that the engine shows, and the authorities whose clients it lets in."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from engine.config.section import ReadableFile, Section


class TlsConfig(Section):
    """TLS of the gRPC port, and of the metrics port where serving.metrics_tls says so.

    The files are read again when they change, so that a renewed certificate needs no restart.
    """

    certificate: ReadableFile | None = Field(
        None,
        description="PEM file of the engine's certificate, the ones between it and the authority behind it; none: calls"
        " are not encrypted",
    )
    key: ReadableFile | None = Field(
        None, validate_default=True, description="PEM file of the certificate's key, which no passphrase may protect"
    )
    client_authorities: ReadableFile | None = Field(
        None,
        validate_default=True,
        description="PEM file of the authorities that sign the certificates of clients; where it is set, a client"
        " without such a certificate is turned away (mutual TLS)",
    )

    @field_validator("key")
    @classmethod
    def _both_or_neither(cls, key: Path | None, info: ValidationInfo) -> Path | None:
        certificate = info.data.get("certificate", "wrong")  # It is absent where it is wrong itself.
        if certificate == "wrong":
            return key
        if certificate is not None and key is None:
            raise ValueError("must name the file of the key where tls.certificate is set")
        if key is not None and certificate is None:
            raise ValueError("needs tls.certificate, the file of the certificate that the key belongs to")
        return key

    @field_validator("client_authorities")
    @classmethod
    def _needs_a_certificate(cls, authorities: Path | None, info: ValidationInfo) -> Path | None:
        if authorities is not None and info.data.get("certificate", "wrong") is None:
            raise ValueError("needs tls.certificate and tls.key, because clients are asked for theirs over TLS")
        return authorities
