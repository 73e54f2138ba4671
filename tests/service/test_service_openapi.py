"""The OpenAPI document: valid, with examples that fit, and complete."""

from typing import Any

from sayso.service import schemas


def test_every_example_fits_its_schema() -> None:
    for name in ("SpeakerOut", "EnrollmentAdded", "Verification", "Identification", "Comparison", "Problem"):
        schema = getattr(schemas, name)
        (example,) = schema.model_config["json_schema_extra"]["examples"]
        assert schema(**example).model_dump(exclude_unset=True) == example


def test_every_call_of_the_design_is_there(service: Any) -> None:
    document = service.client.get("/openapi.json").json()
    calls = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert calls == {
        "POST /v1/speakers",
        "GET /v1/speakers",
        "GET /v1/speakers/{speaker_id}",
        "PATCH /v1/speakers/{speaker_id}",
        "DELETE /v1/speakers/{speaker_id}",
        "GET /v1/speakers/{speaker_id}/export",
        "POST /v1/speakers/{speaker_id}/enrollments",
        "POST /v1/speakers/{speaker_id}/unlock",
        "GET /v1/speakers/{speaker_id}/enrollments",
        "DELETE /v1/speakers/{speaker_id}/enrollments/{enrollment_id}",
        "POST /v1/speakers/{speaker_id}/verify",
        "POST /v1/identify",
        "POST /v1/compare",
        "POST /v1/embeddings",
        "GET /v1/models",
        "POST /v1/models/compare",
        "GET /healthz",
        "GET /readyz",
        "GET /metrics",
    }
    for path, methods in document["paths"].items():
        for call in methods.values():
            assert call["summary"], path
            if call.get("security"):
                assert "application/problem+json" in call["responses"]["401"]["content"], path


def test_recordings_are_documented_as_form_and_as_raw_body(service: Any) -> None:
    document = service.client.get("/openapi.json").json()
    content = document["paths"]["/v1/identify"]["post"]["requestBody"]["content"]
    assert {"multipart/form-data", "audio/wav", "audio/ogg"} <= content.keys()
    assert content["multipart/form-data"]["schema"]["properties"]["audio"]["format"] == "binary"


def test_every_call_has_a_name_that_generated_clients_can_use(service: Any) -> None:
    document = service.client.get("/openapi.json").json()
    names = [call["operationId"] for calls in document["paths"].values() for call in calls.values()]
    assert len(names) == len(set(names))
    assert {"speakers_create", "speakers_list", "decisions_verify", "system_models"} <= set(names)
