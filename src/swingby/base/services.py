"""What the services behind remote bases answer when they refuse: their codes, our errors, and what helps."""

from __future__ import annotations

from typing import NamedTuple

from swingby.errors import (
    AccessDeniedError,
    AuthenticationError,
    BaseNotFoundError,
    ObjectChangedError,
    ObjectExistsError,
    ObjectNotFoundError,
    SwingbyError,
    UrlError,
)


class RangeError(UrlError):
    """A range that begins behind the object's end; the base turns it into no bytes."""


class Service(NamedTuple):
    """A storage service.

    Attributes:
        scheme: of its URLs.
        codes: its error codes, each with our error and what helps.
        absent, denied: the codes of an object that is not there, and of one that may not be read.
        unidentified: what helps where obstore cannot get an access token.
    """

    scheme: str
    codes: dict[str, tuple[type[SwingbyError], str]]
    absent: str
    denied: str
    unidentified: str = ""


_CHECK_BUCKET = "Check the bucket's name and the endpoint (STORAGE_EMULATOR_HOST)"
_CHECK_CONTAINER = "Check the names of container and account, and the endpoint"
_AZURE_CREDENTIALS = (
    "Check AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN or the connection string, and this machine's clock"
)
_AZURE_RIGHTS = "These credentials may not do this; ask for the role Storage Blob Data Reader, or a SAS with sp=rl"
_GOOGLE_CREDENTIALS = "Check GOOGLE_APPLICATION_CREDENTIALS and this machine's clock"

S3_SERVICE = Service(
    "s3",
    {
        "NoSuchKey": (ObjectNotFoundError, ""),
        "NoSuchBucket": (BaseNotFoundError, "Check the bucket's name and the endpoint (AWS_ENDPOINT_URL)"),
        "AccessDenied": (
            AccessDeniedError,
            "These credentials may not do this; ask for s3:ListBucket and s3:GetObject",
        ),
        "InvalidAccessKeyId": (AuthenticationError, "Check AWS_ACCESS_KEY_ID"),
        "SignatureDoesNotMatch": (AuthenticationError, "Check AWS_SECRET_ACCESS_KEY and AWS_REGION"),
        "ExpiredToken": (AuthenticationError, "The session token has expired; get a new one"),
        "InvalidToken": (AuthenticationError, "Check AWS_SESSION_TOKEN"),
        "RequestTimeTooSkewed": (AuthenticationError, "Set this machine's clock"),
        "AuthorizationHeaderMalformed": (AuthenticationError, "Set AWS_REGION to the bucket's region"),
        "PermanentRedirect": (BaseNotFoundError, "Set AWS_REGION to the bucket's region"),
        "InvalidRange": (RangeError, ""),
        "BucketAlreadyExists": (ObjectExistsError, ""),
        "BucketAlreadyOwnedByYou": (ObjectExistsError, ""),
        "PreconditionFailed": (ObjectExistsError, ""),
        "InvalidBucketName": (BaseNotFoundError, "Check the bucket's name"),
        "MethodNotAllowed": (UrlError, "Is the endpoint an S3 service?"),
    },
    absent="NoSuchKey",
    denied="AccessDenied",
)

AZURE = Service(
    "az",
    {
        "BlobNotFound": (ObjectNotFoundError, ""),
        "ContainerNotFound": (BaseNotFoundError, _CHECK_CONTAINER),
        "ContainerBeingDeleted": (BaseNotFoundError, _CHECK_CONTAINER),
        "InvalidResourceName": (BaseNotFoundError, _CHECK_CONTAINER),
        "ResourceNotFound": (BaseNotFoundError, _CHECK_CONTAINER),
        "AuthenticationFailed": (AuthenticationError, _AZURE_CREDENTIALS),
        "AuthorizationFailure": (AuthenticationError, _AZURE_CREDENTIALS),
        "InvalidAuthenticationInfo": (AuthenticationError, _AZURE_CREDENTIALS),
        "NoAuthenticationInformation": (AuthenticationError, "This container is not public; give credentials"),
        "PublicAccessNotPermitted": (AuthenticationError, "This account has no public containers; give credentials"),
        "AccountIsDisabled": (AuthenticationError, ""),
        "AuthorizationPermissionMismatch": (AccessDeniedError, _AZURE_RIGHTS),
        "AuthorizationProtocolMismatch": (AccessDeniedError, "Use an https endpoint"),
        "AuthorizationSourceIPMismatch": (AccessDeniedError, "The SAS is for other addresses"),
        "InsufficientAccountPermissions": (AccessDeniedError, _AZURE_RIGHTS),
        "BlobArchived": (AccessDeniedError, "It is in the archive tier; rehydrate it first"),
        "InvalidRange": (RangeError, ""),
        "BlobAlreadyExists": (ObjectExistsError, ""),
        "ConditionNotMet": (ObjectChangedError, ""),
    },
    absent="BlobNotFound",
    denied="AuthorizationPermissionMismatch",
    unidentified="Set AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING, or AZURE_TENANT_ID, "
    "AZURE_CLIENT_ID and AZURE_CLIENT_SECRET; for public containers SWINGBY_AZ_ANONYMOUS=true",
)

GOOGLE = Service(
    "gs",
    {
        "NoSuchKey": (ObjectNotFoundError, ""),
        "NoSuchBucket": (BaseNotFoundError, _CHECK_BUCKET),
        "InvalidBucketName": (BaseNotFoundError, _CHECK_BUCKET),
        "AccessDenied": (
            AccessDeniedError,
            "These credentials may not do this; ask for the role Storage Object Viewer",
        ),
        "AuthenticationRequired": (AuthenticationError, _GOOGLE_CREDENTIALS),
        "ExpiredToken": (AuthenticationError, _GOOGLE_CREDENTIALS),
        "InvalidSecurity": (AuthenticationError, _GOOGLE_CREDENTIALS),
        "SignatureDoesNotMatch": (AuthenticationError, _GOOGLE_CREDENTIALS),
        "UserProjectAccountProblem": (AccessDeniedError, "The project's billing account does not serve this"),
        "InvalidRange": (RangeError, ""),
        "PreconditionFailed": (ObjectExistsError, ""),
    },
    absent="NoSuchKey",
    denied="AccessDenied",
    unidentified="Set GOOGLE_APPLICATION_CREDENTIALS to a service account's file, or run `gcloud auth application-default login`; "
    "for public buckets set SWINGBY_GS_ANONYMOUS=true",
)
