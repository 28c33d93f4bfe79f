//! What clients send: a place in the queue first, then a body of the right type, with the
//! field that is wrong by its name.

use axum::body::Bytes;
use axum::extract::multipart::{Multipart, MultipartError};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::ApiError;
use super::jobs::Place;
use super::model::needed;
use super::settings::{BODY_TIMEOUT, MOST_BODY};
use super::state::Shared;

/// A place in the queue, taken before the body is read.
pub struct Admitted(pub Place);

impl FromRequestParts<Shared> for Admitted {
    type Rejection = ApiError;

    async fn from_request_parts(_: &mut Parts, server: &Shared) -> Result<Self, ApiError> {
        Ok(Admitted(needed(&server.model)?.queue.place()?))
    }
}

/// A JSON body.
pub struct Sent<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Sent<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        demand_type(&request, "application/json")?;
        let bytes = bytes(request, state).await?;
        let mut reader = serde_json::Deserializer::from_slice(&bytes);
        let value: Value = serde_path_to_error::deserialize(&mut reader)
            .map_err(|e| ApiError::bad_request(format!("the body is not JSON: {}", e.inner())))?;
        reader
            .end()
            .map_err(|e| ApiError::bad_request(format!("the body is not JSON: {e}")))?;
        from_value(value).map(Sent)
    }
}

/// The raw bytes of a body of any type.
pub async fn bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, ApiError> {
    match tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, state)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            Err(too_large())
        }
        Ok(Err(_)) => Err(ApiError::bad_request("the body ends too early")),
        Err(_) => Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not come in time",
        )),
    }
}

fn too_large() -> ApiError {
    let message = format!("the body is larger than {MOST_BODY} bytes");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
}

fn demand_type(request: &Request, wanted: &str) -> Result<(), ApiError> {
    let header = request.headers().get(CONTENT_TYPE);
    let found = header.and_then(|header| header.to_str().ok()).unwrap_or("");
    let kind = found.split(';').next().unwrap_or("").trim();
    if kind.eq_ignore_ascii_case(wanted) {
        return Ok(());
    }
    let message = format!("Content-Type is {found:?}, expected {wanted}");
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
}

/// `value` as the fields of `T`.
///
/// # Errors
///
/// The first field that is wrong, by its name.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, ApiError> {
    if !value.is_object() {
        return Err(ApiError::bad_request("the body is not a JSON object"));
    }
    let mut value = value;
    let error = match serde_path_to_error::deserialize(&value) {
        Ok(fields) => return Ok(fields),
        Err(error) => error,
    };
    let inner = error.inner().to_string();
    let path = error.path().to_string();
    let named = Some(path).filter(|path| !["", "."].contains(&path.as_str()));
    // Fields of a part that is read together have no path: the wrong one is that without
    // which all is well.
    let alone = named.or_else(|| wrong_field::<T>(&mut value));
    Err(match alone {
        Some(param) => ApiError::field(&param, format!("{param}: {inner}")),
        None => ApiError::bad_request(inner),
    })
}

fn wrong_field<T: DeserializeOwned>(value: &mut Value) -> Option<String> {
    let fields = value.as_object_mut()?;
    let names: Vec<String> = fields.keys().take(100).cloned().collect();
    names.into_iter().find(|name| {
        let Some(taken) = value.as_object_mut().and_then(|fields| fields.remove(name)) else {
            return false;
        };
        let well = T::deserialize(&*value).is_ok();
        if let Some(fields) = value.as_object_mut() {
            fields.insert(name.clone(), taken);
        }
        well
    })
}

/// The fields of a form: texts by name, and files.
pub struct Form {
    pub texts: Map<String, Value>,
    pub files: Vec<(String, Vec<u8>)>,
}

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        demand_type(&request, "multipart/form-data")?;
        let form = Multipart::from_request(request, state)
            .await
            .map_err(|e| ApiError::bad_request(e.to_string()))?;
        match tokio::time::timeout(BODY_TIMEOUT, read(form)).await {
            Ok(form) => form,
            Err(_) => Err(ApiError::new(
                StatusCode::REQUEST_TIMEOUT,
                "the form did not come in time",
            )),
        }
    }
}

async fn read(mut multipart: Multipart) -> Result<Form, ApiError> {
    let wrong = |error: MultipartError| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        _ => ApiError::bad_request(format!("the form cannot be read: {}", error.body_text())),
    };
    let mut form = Form {
        texts: Map::new(),
        files: Vec::new(),
    };
    while let Some(field) = multipart.next_field().await.map_err(wrong)? {
        let name = field.name().unwrap_or("").to_string();
        let is_file = field.file_name().is_some() || FILES.contains(&name.as_str());
        let bytes = field.bytes().await.map_err(wrong)?;
        if is_file {
            form.files.push((name, bytes.to_vec()));
            continue;
        }
        let text = String::from_utf8(bytes.to_vec());
        let text = text.map_err(|_| ApiError::field(&name, format!("{name} is not UTF-8")))?;
        form.texts.insert(name, Value::String(text));
    }
    Ok(form)
}

/// Fields that are files, whatever the client says of them.
const FILES: [&str; 3] = ["image", "image[]", "mask"];
