"""Every knob of raysynth, once: typed, validated, documented, with its unit."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    Field,
    model_validator,
)

from raysynth.cluster.asked import Asked
from raysynth.cluster.settings import ResourcesConfig
from raysynth.clustering.settings import ClusteringConfig
from raysynth.config.benchmark import BenchmarkConfig
from raysynth.datasets.settings import DatasetConfig
from raysynth.finetune.settings import FinetuneConfig
from raysynth.generators.generator import GENERATORS, check_generator
from raysynth.generators.recipe import AUTO
from raysynth.grouping.settings import GroupingConfig
from raysynth.groups.settings import PromptConfig
from raysynth.knobs import NAME, Place, Section, digest_of, knob
from raysynth.models.settings import BaseConfigSection
from raysynth.networks.settings import ClassifierConfig
from raysynth.references.settings import ReferencesConfig
from raysynth.registry import chosen_part, named_part
from raysynth.search.settings import SearchConfig
from raysynth.selection.settings import SelectionConfig
from raysynth.synthesis.settings import SynthesisConfig
from raysynth.trackers.tracker import TRACKERS

PRETRAINED_RATES: dict[str, dict[str, Any]] = {
    "classifier": {"learning_rate": 1e-4, "full_learning_rate": 1e-4},
    "references": {"learning_rates": (1e-4,)},
    "search": {"learning_rates": (1e-5, 1e-3)},
}
"""Peak learning rates of pretrained `clip` and transformers backbones, which the small network's
spoil (docs/decisions/028-backbones.md)."""


class Config(Section):
    """One run: top-level keys and one section per room."""

    name: str = Field("quickstart", pattern=NAME, description="Run's name.")
    storage_path: Place = Field("runs", description="Folder or URI (s3://, gs://) of the runs.")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="Seed of the whole run.")
    generator: named_part(GENERATORS, AUTO) = Field(  # type: ignore[valid-type]
        "clustered_dreambooth",
        description="vanilla: prompt only; lora, dreambooth: LoRA or full weights per group; "
        "clustered_dreambooth: a model per cluster (paper); shared: a model for all groups; edit: "
        "real images edited by it; auto: the best of `candidates`, for each group (ours).",
    )
    candidates: Annotated[
        tuple[named_part(GENERATORS), ...],  # type: ignore[valid-type]
        Field(min_length=1),
    ] = Field(
        ("vanilla", "clustered_dreambooth", "shared", "edit"),
        description="auto: generators that are tried.",
    )
    dataset: DatasetConfig = Field(default_factory=DatasetConfig)
    base: BaseConfigSection = Field(default_factory=BaseConfigSection)
    prompts: PromptConfig = Field(default_factory=PromptConfig)
    clustering: ClusteringConfig = Field(default_factory=ClusteringConfig)
    finetune: FinetuneConfig = Field(default_factory=FinetuneConfig)
    synthesis: SynthesisConfig = Field(default_factory=SynthesisConfig)
    selection: SelectionConfig = Field(default_factory=SelectionConfig)
    classifier: ClassifierConfig = Field(default_factory=ClassifierConfig)
    references: ReferencesConfig = Field(default_factory=ReferencesConfig)
    search: SearchConfig = Field(default_factory=SearchConfig)
    resources: ResourcesConfig = Field(default_factory=ResourcesConfig)
    grouping: GroupingConfig = Field(default_factory=GroupingConfig)
    benchmark: BenchmarkConfig = Field(default_factory=BenchmarkConfig)
    trackers: tuple[chosen_part(TRACKERS), ...] = knob(  # type: ignore[valid-type]
        (),
        "Where runs tell what their stages found: names, or mappings of `name` and a tracker's own "
        "knobs.",
        width=True,
    )

    @model_validator(mode="after")
    def _check(self) -> Config:
        if self.search.steps[1] == 0 and not self.classifier.starts_pretrained:
            raise ValueError("search.steps: [0, 0] needs a pretrained classifier.backbone")
        if self.search.steps[1] == 0 and self.classifier.schedule != "head":
            raise ValueError(
                f"search.steps: [0, 0], but classifier.schedule={self.classifier.schedule} trains "
                "more than a head. Fix: search.steps=[50, 400], or classifier.schedule=head"
            )
        blind = self.resources.gpus_per_worker > 0 and not self.search.gpus_per_trial
        if blind and self.classifier.backbone != "small":
            raise ValueError(
                "search.gpus_per_trial: 0, so trials would train "
                f"{self.classifier.backbone} without a GPU, though workers have one. Fix: "
                "search.gpus_per_trial=1"
            )
        embedded = self.base.name == "embedded" and bool(self.dataset.garments)
        if "base_classifier" in self.references.controls and not embedded:
            raise ValueError(
                "references.controls: base_classifier needs base.name=embedded and "
                "dataset.name=outfits, whose labelled pretraining images are known"
            )
        self.classifier.check_share("search.head_real_shares", min(self.search.head_real_shares))
        if self.generator == AUTO and self.finetune.overrides:
            raise ValueError(
                "finetune.overrides: names adapters of one generator, but generator=auto trains "
                f"those of {', '.join(self.candidates)}. Fix: one of these, or no overrides"
            )
        for name in self.candidates if self.generator == AUTO else (self.generator,):
            check_generator(name, self.prompts, self.finetune)
        return self

    @model_validator(mode="after")
    def _rates_of_the_backbone(self) -> Config:
        """Learning rates that were not given follow the backbone, where it is trained at all."""
        if self.classifier.backbone == "small":
            return self
        ours = self.classifier.starts_pretrained
        theirs = self.for_references().classifier.starts_pretrained
        tuned = {
            "classifier": ours and self.classifier.steps > 0,
            "references": theirs and bool(self.references.names),
            "search": ours and self.search.steps[1] > 0,
        }
        for name in (section for section, is_tuned in tuned.items() if is_tuned):
            given, rates = getattr(self, name).model_fields_set, PRETRAINED_RATES[name].items()
            self._fill(name, {key: rate for key, rate in rates if key not in given})
        self._rates_of_the_mixtures()
        return self

    def _rates_of_the_mixtures(self) -> None:
        """Where references start otherwise, mixtures have the rates of their own start."""
        classifier, references = self.classifier, self.references
        told = classifier.mixture_learning_rates or "learning_rates" in references.model_fields_set
        if told or not classifier.mixtures:
            return
        rates = ReferencesConfig.model_fields["learning_rates"].default
        if classifier.starts_pretrained:
            rates = PRETRAINED_RATES["references"]["learning_rates"]
        if rates != references.learning_rates:
            self._fill("classifier", {"mixture_learning_rates": rates})

    def _fill(self, name: str, values: dict[str, Any]) -> None:
        """Set a section's fields without marking them as given: a row may have its own."""
        section = getattr(self, name)
        filled = type(section).model_construct(section.model_fields_set, **dict(section) | values)
        object.__setattr__(self, name, filled)

    @property
    def asked(self) -> tuple[Asked, ...]:
        """What the stages ask of the cluster, each by itself."""
        found = (getattr(section, "asked", None) for _, section in self)
        return tuple(each for each in found if each is not None)

    def for_references(self) -> Config:
        """This configuration with the start that references have."""
        start = self.references.start or self.classifier.start
        classifier = self.classifier.model_copy(update={"start": start})
        return self.model_copy(update={"classifier": classifier})

    def for_mixtures(self) -> ReferencesConfig:
        """What mixtures are tuned over: `references`, with the learning rates of their start."""
        rates = self.classifier.mixture_learning_rates or self.references.learning_rates
        return self.references.model_copy(update={"learning_rates": rates})

    def digest(self) -> str:
        """Hex digest of everything that can change a result (not where it runs)."""
        leave = {"storage_path", "resources", "name", "benchmark", "trackers"}
        if self.grouping.is_given:  # as before there was another way
            leave.add("grouping")
        return digest_of(self.model_dump(mode="json", exclude=leave))
