from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_USER: _ClassVar[Role]
    ROLE_ASSISTANT: _ClassVar[Role]

class Truncate(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRUNCATE_UNSPECIFIED: _ClassVar[Truncate]
    TRUNCATE_HEAD: _ClassVar[Truncate]
    TRUNCATE_WINDOWS: _ClassVar[Truncate]

class Action(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTION_UNSPECIFIED: _ClassVar[Action]
    ACTION_ALLOW: _ClassVar[Action]
    ACTION_REVIEW: _ClassVar[Action]
    ACTION_BLOCK: _ClassVar[Action]
ROLE_UNSPECIFIED: Role
ROLE_USER: Role
ROLE_ASSISTANT: Role
TRUNCATE_UNSPECIFIED: Truncate
TRUNCATE_HEAD: Truncate
TRUNCATE_WINDOWS: Truncate
ACTION_UNSPECIFIED: Action
ACTION_ALLOW: Action
ACTION_REVIEW: Action
ACTION_BLOCK: Action

class Message(_message.Message):
    __slots__ = ("role", "content")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    role: Role
    content: str
    def __init__(self, role: _Optional[_Union[Role, str]] = ..., content: _Optional[str] = ...) -> None: ...

class ClassifyRequest(_message.Message):
    __slots__ = ("messages", "policy", "truncate", "routing_key", "exact")
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_FIELD_NUMBER: _ClassVar[int]
    ROUTING_KEY_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[Message]
    policy: str
    truncate: Truncate
    routing_key: str
    exact: bool
    def __init__(self, messages: _Optional[_Iterable[_Union[Message, _Mapping]]] = ..., policy: _Optional[str] = ..., truncate: _Optional[_Union[Truncate, str]] = ..., routing_key: _Optional[str] = ..., exact: _Optional[bool] = ...) -> None: ...

class ClassifyResponse(_message.Message):
    __slots__ = ("verdict",)
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    def __init__(self, verdict: _Optional[_Union[Verdict, _Mapping]] = ...) -> None: ...

class ClassifyManyRequest(_message.Message):
    __slots__ = ("id", "request")
    ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    id: str
    request: ClassifyRequest
    def __init__(self, id: _Optional[str] = ..., request: _Optional[_Union[ClassifyRequest, _Mapping]] = ...) -> None: ...

class ClassifyManyResponse(_message.Message):
    __slots__ = ("id", "verdict", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: str
    verdict: Verdict
    error: _status_pb2.Status
    def __init__(self, id: _Optional[str] = ..., verdict: _Optional[_Union[Verdict, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class ListPoliciesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListPoliciesResponse(_message.Message):
    __slots__ = ("release", "policies")
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    release: int
    policies: _containers.RepeatedCompositeFieldContainer[Policy]
    def __init__(self, release: _Optional[int] = ..., policies: _Optional[_Iterable[_Union[Policy, _Mapping]]] = ...) -> None: ...

class Policy(_message.Message):
    __slots__ = ("name", "version", "roles", "categories", "review", "threshold")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    REVIEW_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    roles: _containers.RepeatedScalarFieldContainer[Role]
    categories: _containers.RepeatedCompositeFieldContainer[Category]
    review: float
    threshold: float
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., roles: _Optional[_Iterable[_Union[Role, str]]] = ..., categories: _Optional[_Iterable[_Union[Category, _Mapping]]] = ..., review: _Optional[float] = ..., threshold: _Optional[float] = ...) -> None: ...

class Category(_message.Message):
    __slots__ = ("code", "name", "description", "roles", "review", "threshold")
    CODE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    REVIEW_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    code: str
    name: str
    description: str
    roles: _containers.RepeatedScalarFieldContainer[Role]
    review: float
    threshold: float
    def __init__(self, code: _Optional[str] = ..., name: _Optional[str] = ..., description: _Optional[str] = ..., roles: _Optional[_Iterable[_Union[Role, str]]] = ..., review: _Optional[float] = ..., threshold: _Optional[float] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("release", "policy", "role", "flagged", "p_unsafe", "p_safe", "categories", "unexplored", "off_grammar", "greedy", "num_tokens", "num_truncated_tokens", "p_unsafe_calibrated", "unsafe_flagged", "calibration", "p_controversial", "undecided", "windows", "action", "exit_layer")
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    FLAGGED_FIELD_NUMBER: _ClassVar[int]
    P_UNSAFE_FIELD_NUMBER: _ClassVar[int]
    P_SAFE_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    UNEXPLORED_FIELD_NUMBER: _ClassVar[int]
    OFF_GRAMMAR_FIELD_NUMBER: _ClassVar[int]
    GREEDY_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_TRUNCATED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    P_UNSAFE_CALIBRATED_FIELD_NUMBER: _ClassVar[int]
    UNSAFE_FLAGGED_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_FIELD_NUMBER: _ClassVar[int]
    P_CONTROVERSIAL_FIELD_NUMBER: _ClassVar[int]
    UNDECIDED_FIELD_NUMBER: _ClassVar[int]
    WINDOWS_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    EXIT_LAYER_FIELD_NUMBER: _ClassVar[int]
    release: int
    policy: str
    role: Role
    flagged: bool
    p_unsafe: float
    p_safe: float
    categories: _containers.RepeatedCompositeFieldContainer[CategoryScore]
    unexplored: float
    off_grammar: float
    greedy: GreedyVerdict
    num_tokens: int
    num_truncated_tokens: int
    p_unsafe_calibrated: float
    unsafe_flagged: bool
    calibration: str
    p_controversial: float
    undecided: bool
    windows: _containers.RepeatedCompositeFieldContainer[Window]
    action: Action
    exit_layer: int
    def __init__(self, release: _Optional[int] = ..., policy: _Optional[str] = ..., role: _Optional[_Union[Role, str]] = ..., flagged: _Optional[bool] = ..., p_unsafe: _Optional[float] = ..., p_safe: _Optional[float] = ..., categories: _Optional[_Iterable[_Union[CategoryScore, _Mapping]]] = ..., unexplored: _Optional[float] = ..., off_grammar: _Optional[float] = ..., greedy: _Optional[_Union[GreedyVerdict, _Mapping]] = ..., num_tokens: _Optional[int] = ..., num_truncated_tokens: _Optional[int] = ..., p_unsafe_calibrated: _Optional[float] = ..., unsafe_flagged: _Optional[bool] = ..., calibration: _Optional[str] = ..., p_controversial: _Optional[float] = ..., undecided: _Optional[bool] = ..., windows: _Optional[_Iterable[_Union[Window, _Mapping]]] = ..., action: _Optional[_Union[Action, str]] = ..., exit_layer: _Optional[int] = ...) -> None: ...

class CategoryScore(_message.Message):
    __slots__ = ("code", "name", "marginal", "joint", "conditional", "calibrated", "flagged", "window", "action")
    CODE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MARGINAL_FIELD_NUMBER: _ClassVar[int]
    JOINT_FIELD_NUMBER: _ClassVar[int]
    CONDITIONAL_FIELD_NUMBER: _ClassVar[int]
    CALIBRATED_FIELD_NUMBER: _ClassVar[int]
    FLAGGED_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    code: str
    name: str
    marginal: float
    joint: float
    conditional: float
    calibrated: float
    flagged: bool
    window: int
    action: Action
    def __init__(self, code: _Optional[str] = ..., name: _Optional[str] = ..., marginal: _Optional[float] = ..., joint: _Optional[float] = ..., conditional: _Optional[float] = ..., calibrated: _Optional[float] = ..., flagged: _Optional[bool] = ..., window: _Optional[int] = ..., action: _Optional[_Union[Action, str]] = ...) -> None: ...

class GreedyVerdict(_message.Message):
    __slots__ = ("text", "labels", "complete")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    text: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    complete: bool
    def __init__(self, text: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ..., complete: _Optional[bool] = ...) -> None: ...

class Window(_message.Message):
    __slots__ = ("begin", "end", "p_unsafe")
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    P_UNSAFE_FIELD_NUMBER: _ClassVar[int]
    begin: Place
    end: Place
    p_unsafe: float
    def __init__(self, begin: _Optional[_Union[Place, _Mapping]] = ..., end: _Optional[_Union[Place, _Mapping]] = ..., p_unsafe: _Optional[float] = ...) -> None: ...

class Place(_message.Message):
    __slots__ = ("message", "character")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CHARACTER_FIELD_NUMBER: _ClassVar[int]
    message: int
    character: int
    def __init__(self, message: _Optional[int] = ..., character: _Optional[int] = ...) -> None: ...
