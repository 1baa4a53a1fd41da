Feature: Paying
  An order is paid once, whatever goes wrong between the customer, the platform and the payment provider.

  Background:
    Given Ada is a customer
    And there are 10 lamps at 12.50 EUR each
    And Ada has ordered 2 lamps

  Scenario: An order is paid
    When Ada pays with a good card
    Then the order is paid
    And Ada has spent 25.00 EUR

  Scenario: After a card was declined another may be tried
    When Ada pays with a card that is declined
    Then Ada is told "The payment was declined"
    And the order is waiting for payment
    When Ada pays with a good card
    Then the order is paid

  Scenario: A payment that is sent twice is one payment
    When Ada pays with a good card
    And Ada makes the same request again
    Then the order is paid
    And Ada has spent 25.00 EUR

  Scenario: What is paid is not paid again
    Given Ada has paid with a good card
    When Ada pays with a good card
    Then Ada is told "The order cannot change that way from its status"
    And Ada has spent 25.00 EUR

  Scenario: What is paid is not cancelled
    Given Ada has paid with a good card
    When Ada cancels the order
    Then Ada is told "The order cannot change that way from its status"
    And the order is paid

  Scenario: While the payment provider fails nothing is charged
    When Ada pays with a card while the payment provider fails
    Then Ada is told "The payment provider failed; nothing was charged"
    And the order is waiting for payment
    When Ada pays with a good card
    Then the order is paid
    And Ada has spent 25.00 EUR

  Scenario: Where the payment provider's answer is lost, the same request finds it
    When Ada pays with a card while the payment provider is slow
    Then Ada is told "The payment provider did not answer in time"
    When Ada cancels the order
    Then Ada is told "A payment of this order is under way"
    When Ada makes the same request again
    Then the order is paid
    And Ada has spent 25.00 EUR

  Scenario: What was cancelled is not paid
    Given Ada has cancelled the order
    When Ada pays with a good card
    Then Ada is told "The order cannot change that way from its status"
    And Ada has spent 0.00 EUR

  Scenario: Nobody pays the order of somebody else
    Given Ben is a customer
    When Ben pays with a good card
    Then Ben is told "There is nothing here"
    And the order is waiting for payment
