"""Closed forms of guidance."""

import pytest
import torch

from models.sampling.branches import Branch, Guidance
from models.sampling.guidance import camera_and_object, camera_free, classifier_free, rescaled

NULL, TEXT, OBJECT, CAMERA = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))


def test_classifier_free_guidance_of_one_is_the_text_prediction():
    torch.testing.assert_close(classifier_free(NULL, TEXT, 1.0), TEXT)
    torch.testing.assert_close(classifier_free(NULL, TEXT, 0.0), NULL)


def test_eq_5_without_trajectory_guidance_is_classifier_free_guidance_of_theta_0():
    torch.testing.assert_close(camera_free(NULL, TEXT, OBJECT, 8.5, 0.0), classifier_free(NULL, TEXT, 8.5))


def test_eq_5_with_both_weights_one_is_the_trajectory_prediction():
    torch.testing.assert_close(camera_free(NULL, TEXT, OBJECT, 1.0, 1.0), OBJECT)


def test_eq_5_weights_sum_to_one_so_that_it_commutes_with_a_change_of_prediction_type():
    x_t, alpha, sigma = torch.ones(2, 3), 0.8, 0.6
    to_sample = [(x_t - sigma * noise) / alpha for noise in (NULL, TEXT, OBJECT)]
    guided_noise = camera_free(NULL, TEXT, OBJECT, 8.5, 1.1)
    torch.testing.assert_close(camera_free(*to_sample, 8.5, 1.1), (x_t - sigma * guided_noise) / alpha)


@pytest.mark.parametrize("rescale", [0.0, 0.5, 1.0])
def test_rescaling_gives_each_video_the_spread_of_its_reference(rescale):
    guided, reference = torch.randn(2, 2, 3, 4, 5, 6, 7, generator=torch.Generator().manual_seed(1))
    guided *= torch.tensor([3.0, 0.5])[:, None, None, None, None, None]
    result = rescaled(guided, reference, rescale)
    before, target, after = (x.std((-4, -3, -2, -1)) for x in (guided, reference, result))
    torch.testing.assert_close(after, (1 - rescale) * before + rescale * target)
    torch.testing.assert_close(rescaled(guided[1], reference[1], rescale), result[1])
    assert rescale or torch.equal(result, guided)


def test_eq_5_is_rescaled_to_the_prediction_under_the_object_lora():
    text, object_ = torch.randn(2, 1, 4, 5, 6, 7, generator=torch.Generator().manual_seed(2))
    predictions = {Branch(None, "text"): text, Branch("object", "text"): 2 * object_}
    guided = Guidance("object", 1, 3.0, rescale=1.0).join(predictions)
    torch.testing.assert_close(guided.std(), 2 * object_.std())
    torch.testing.assert_close(guided / guided.std(), (x := text + 3 * (2 * object_ - text)) / x.std())


def test_camera_and_object_without_a_camera_difference_is_eq_5():
    ours = camera_and_object(NULL, TEXT, (CAMERA, CAMERA), (OBJECT, TEXT), 8.5, 1.0, 1.1)
    torch.testing.assert_close(ours, camera_free(NULL, TEXT, OBJECT, 8.5, 1.1))


def test_plain_modes_put_their_lora_in_both_branches_as_the_authors_do():
    assert Guidance("camera", 8.5, None).branches() == [Branch("camera", "null"), Branch("camera", "text")]
    assert Guidance("object", 8.5, None).branches() == [Branch("object", "null"), Branch("object", "text")]
    assert Guidance("camera", 8.5, 1.1).branches() == Guidance("camera", 8.5, None).branches()


def test_eq_5_has_three_branches_of_which_one_has_the_object_lora():
    assert Guidance("object", 8.5, 1.1).branches() == [
        Branch(None, "null"),
        Branch(None, "text"),
        Branch("object", "text"),
    ]


@pytest.mark.parametrize("mode", ["camera", "object", "both", "controlnet", "none"])
def test_a_scale_of_one_needs_no_null_branch(mode):
    assert all(branch.prompt == "text" for branch in Guidance(mode, 1, None).branches())


@pytest.mark.parametrize("mode", ["camera", "object", "both", "controlnet", "none"])
@pytest.mark.parametrize("trajectory_scale", [None, 1.1])
@pytest.mark.parametrize("scale", [1, 8.5])
def test_where_all_branches_agree_guidance_changes_nothing(mode, scale, trajectory_scale):
    predictions = dict.fromkeys(Guidance(mode, scale, trajectory_scale).branches(), TEXT)
    torch.testing.assert_close(Guidance(mode, scale, trajectory_scale).join(predictions), TEXT)


def test_an_unknown_mode_is_named():
    with pytest.raises(ValueError, match="mode: 'zoom' is unknown; use camera, object, both"):
        Guidance("zoom", 1)
