"""Tests of the declaration of the README's queue, which every package with a queue should have."""

from typing import ClassVar

from acme_reports import report_exports

from corral.testing import DeclarationContract


class TestDeclaration(DeclarationContract):
    queue = report_exports
    package = "acme_reports"
    example: ClassVar = {"userId": "ada", "format": "csv"}
    not_for_producers = ("reportlab",)
