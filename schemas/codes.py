"""The closed lists of the contract: mødeformer, statuses, fejlkoder, reasons, faults, and the Danish texts.

Data only; broker/settle.py decides which error becomes which code.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Final


class MeetingForm(StrEnum):
    """A mødeform. A time with several mødeformer is listed once for each, in this order."""

    # The order is R2 (release note 3.1).

    IN_PERSON = "personligtFremmoede"
    TELEPHONE = "telefonisk"
    DIGITAL = "digitalt"

    @property
    def order(self) -> int:
        """0 for personligt fremmøde, 1 for telefonisk, 2 for digitalt."""
        return _FORM_ORDER[self]


_FORM_ORDER: Final = {form: place for place, form in enumerate(MeetingForm)}


class Status(StrEnum):
    """How a request ended.

    done: carried out. refused: not allowed, see reason. failed: an external system failed. expired: too late, nothing
    was called. uncertain: the call was sent, and its result is not known yet.
    """

    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    EXPIRED = "expired"
    UNCERTAIN = "uncertain"


class ErrorCode(IntEnum):
    """Fejlkode of Jobnet: 2 ingen mødetider, 3 ingen mødetilbud, 4 andet problem. There is no 1."""

    # R4 and R10 (release note 3.2).

    NO_TIMES = 2
    NO_OFFERS = 3
    OTHER = 4


class Reason(StrEnum):
    """Why a request was refused: by a rule of the broker (up to caseworker-not-offered), or by an external system."""

    INVALID = "invalid"
    NO_CONTACT_GROUP = "no-contact-group"
    UNKNOWN_JOBCENTER = "unknown-jobcenter"
    CONFLICT = "conflict"
    BUSY = "busy"
    EARLIER_BOOKING_UNCERTAIN = "earlier-booking-uncertain"
    TIME_NOT_OFFERED = "time-not-offered"
    FORM_NOT_OFFERED = "form-not-offered"
    CASEWORKER_NOT_OFFERED = "caseworker-not-offered"

    UNKNOWN_CITIZEN = "unknown-citizen"
    UNKNOWN_OFFER = "unknown-offer"
    UNKNOWN_BOOKING = "unknown-booking"
    UNKNOWN_ERROR_CODE = "unknown-error-code"
    ILLEGAL_ORIGIN = "illegal-origin"
    REJECTED_MESSAGE = "rejected-message"
    SLOT_TAKEN = "slot-taken"
    FORM_NOT_POSSIBLE = "form-not-possible"
    REBOOKING_NOT_POSSIBLE = "rebooking-not-possible"
    CANCELLATION_NOT_POSSIBLE = "cancellation-not-possible"
    RESERVATION_EXPIRED = "reservation-expired"
    ALREADY_RECEIVED = "already-received"


class Fault(StrEnum):
    """The problem types that an external system may return (docs/contract.md#faults); the list is closed."""

    UNKNOWN_CITIZEN = "urn:borgerbooking:fejl:ukendt-borger"
    UNKNOWN_OFFER = "urn:borgerbooking:fejl:ukendt-moedetilbud"
    UNKNOWN_BOOKING = "urn:borgerbooking:fejl:ukendt-booking"
    UNKNOWN_ERROR_CODE = "urn:borgerbooking:fejl:ukendt-fejlkode"
    ILLEGAL_ORIGIN = "urn:borgerbooking:fejl:ulovligt-ophav"
    INVALID_MESSAGE = "urn:borgerbooking:fejl:ugyldig-besked"
    SLOT_TAKEN = "urn:borgerbooking:fejl:tid-optaget"
    FORM_NOT_POSSIBLE = "urn:borgerbooking:fejl:moedeform-ikke-mulig"
    REBOOKING_NOT_POSSIBLE = "urn:borgerbooking:fejl:ombooking-ikke-mulig"
    CANCELLATION_NOT_POSSIBLE = "urn:borgerbooking:fejl:aflysning-ikke-mulig"
    RESERVATION_EXPIRED = "urn:borgerbooking:fejl:reservation-udloebet"
    ALREADY_RECEIVED = "urn:borgerbooking:fejl:allerede-modtaget"


FAULT_REASONS: Final[dict[Fault, Reason]] = {
    Fault.UNKNOWN_CITIZEN: Reason.UNKNOWN_CITIZEN,
    Fault.UNKNOWN_OFFER: Reason.UNKNOWN_OFFER,
    Fault.UNKNOWN_BOOKING: Reason.UNKNOWN_BOOKING,
    Fault.UNKNOWN_ERROR_CODE: Reason.UNKNOWN_ERROR_CODE,
    Fault.ILLEGAL_ORIGIN: Reason.ILLEGAL_ORIGIN,
    Fault.INVALID_MESSAGE: Reason.REJECTED_MESSAGE,
    Fault.SLOT_TAKEN: Reason.SLOT_TAKEN,
    Fault.FORM_NOT_POSSIBLE: Reason.FORM_NOT_POSSIBLE,
    Fault.REBOOKING_NOT_POSSIBLE: Reason.REBOOKING_NOT_POSSIBLE,
    Fault.CANCELLATION_NOT_POSSIBLE: Reason.CANCELLATION_NOT_POSSIBLE,
    Fault.RESERVATION_EXPIRED: Reason.RESERVATION_EXPIRED,
    Fault.ALREADY_RECEIVED: Reason.ALREADY_RECEIVED,
}
"""The reason that the frontend receives for each fault."""


class ReportKind(StrEnum):
    """Who made a failure report: the broker (automatic) or a citizen (citizen)."""

    AUTOMATIC = "automatic"
    CITIZEN = "citizen"


class Origin(IntEnum):
    """FejlOphav: the system in which a failure arose. This broker reports for Jobnet only."""

    JOBNET = 32


_SYSTEM_ERROR: Final = "Systemfejl i kontakten med jobcentrets bookingsystem."

TEXTS_DA: Final[dict[Reason | ErrorCode | Status, str]] = {
    Reason.INVALID: (
        "Der er fejl i de oplysninger, vi har modtaget. Prøv igen, eller kontakt dit jobcenter."
    ),
    Reason.NO_CONTACT_GROUP: (
        "Du er ikke registreret i en kontaktgruppe og kan derfor ikke booke møder. Kontakt dit jobcenter."
    ),
    Reason.UNKNOWN_JOBCENTER: "Du kan ikke booke møder med dit jobcenter her. Kontakt dit jobcenter.",
    Reason.CONFLICT: (
        "Vi har allerede modtaget din booking med andre oplysninger. Se dine møder, før du prøver igen."
    ),
    Reason.BUSY: "Vi er stadig i gang med din forrige booking. Vent et øjeblik, og prøv igen.",
    Reason.EARLIER_BOOKING_UNCERTAIN: (
        "Vi mangler stadig svar på din forrige booking og undersøger, om den er gennemført. "
        "Prøv igen senere, eller kontakt dit jobcenter."
    ),
    Reason.TIME_NOT_OFFERED: "Tiden er ikke længere ledig. Vælg en anden tid.",
    Reason.FORM_NOT_OFFERED: "Den valgte mødeform kan ikke vælges til dette møde. Vælg en anden mødeform.",
    Reason.CASEWORKER_NOT_OFFERED: (
        "Den valgte sagsbehandler er ikke ledig på dette tidspunkt. Vælg en anden tid."
    ),
    Reason.UNKNOWN_CITIZEN: "Du er ikke registreret i jobcentrets bookingsystem. Kontakt dit jobcenter.",
    Reason.UNKNOWN_OFFER: "Mødetilbuddet findes ikke længere. Hent dine mødetilbud igen.",
    Reason.UNKNOWN_BOOKING: "Mødet findes ikke længere. Se dine møder.",
    # The next two belong to failure reports. As the result of a booking they are a system error.
    Reason.UNKNOWN_ERROR_CODE: _SYSTEM_ERROR,
    Reason.ILLEGAL_ORIGIN: _SYSTEM_ERROR,
    Reason.REJECTED_MESSAGE: (
        "Jobcentrets bookingsystem kunne ikke bruge oplysningerne. Kontakt dit jobcenter."
    ),
    Reason.SLOT_TAKEN: "Tiden er netop blevet optaget af en anden. Vælg en anden tid.",
    Reason.FORM_NOT_POSSIBLE: "Mødet kan ikke holdes i den valgte mødeform. Vælg en anden mødeform.",
    Reason.REBOOKING_NOT_POSSIBLE: (
        "Mødet kan ikke flyttes. Kontakt dit jobcenter, hvis tiden ikke passer dig."
    ),
    Reason.CANCELLATION_NOT_POSSIBLE: (
        "Mødet kan ikke aflyses her. Kontakt dit jobcenter, hvis du er forhindret."
    ),
    Reason.RESERVATION_EXPIRED: "Tiden er ikke længere reserveret til dig. Vælg en tid igen.",
    Reason.ALREADY_RECEIVED: "Vi har allerede modtaget din besked.",
    ErrorCode.NO_TIMES: (
        "Der er ingen ledige mødetider lige nu. Prøv igen senere, eller kontakt dit jobcenter."
    ),
    ErrorCode.NO_OFFERS: (
        "Der er ingen mødetilbud til dig lige nu. Prøv igen senere, eller kontakt dit jobcenter."
    ),
    ErrorCode.OTHER: _SYSTEM_ERROR,
    Status.EXPIRED: "Vi modtog din anmodning for sent, og der er ikke sket noget. Prøv igen.",
    Status.UNCERTAIN: (
        "Vi har ikke fået svar fra jobcentrets bookingsystem og ved endnu ikke, om det lykkedes. "
        "Vi undersøger det. Se dine møder senere, eller kontakt dit jobcenter."
    ),
}
"""The texts for the citizen. `done` has none; `refused` has that of its reason, `failed` that of its fejlkode."""

RECEIPT_DA: Final = (
    "Du har nu indmeldt en fejl i forbindelse med booking af et møde. Fejlbeskeden sendes direkte til "
    "leverandøren af bookingsystemet og ikke jobcentret."
)
"""The receipt for a citizen's report, worded as in release note 3.2, B."""

REPORT_CONFLICT_DA: Final = (
    "Vi har allerede modtaget din fejlbeskrivelse med andre oplysninger. Den første er sendt videre."
)
"""`conflict` for a citizen's report; the text in `TEXTS_DA` is about a booking."""

ERROR_TEXT_DA: Final = (
    "Din beskrivelse af fejlen skal være på mindst 1 og højst 500 tegn. Ret den, og send den igen."
)
"""`invalid` because of the length of the fejltekst. R5: the citizen must be told."""
