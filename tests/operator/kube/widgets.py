"""A small kind of the tests' own, as a CRD for the real API server and as its rules for the one in memory."""

from __future__ import annotations

from moorage_operator.kube.object import Obj
from moorage_operator.kube.resource import Resource

WIDGETS = Resource("test.moorage.dev", "v1", "widgets", "Widget")

WIDGETS_CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.test.moorage.dev}
spec:
  group: test.moorage.dev
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget}
  versions:
    - name: v1
      served: true
      storage: true
      subresources: {status: {}}
      selectableFields: [{jsonPath: .spec.color}]
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec:
              type: object
              x-kubernetes-preserve-unknown-fields: true
              properties: {size: {type: integer, maximum: 1000}, color: {type: string}}
            status: {type: object, x-kubernetes-preserve-unknown-fields: true}
"""


def wrong_with(old: Obj | None, new: Obj) -> list[tuple[str, str]]:
    size = (new.get("spec") or {}).get("size", 0)
    return [("spec.size", f"should be less than or equal to 1000, is {size}")] if size > 1000 else []
