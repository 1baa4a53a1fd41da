Feature: Limits
  Nobody takes from the others: not their turn, not their stock, and no card is tried out here.

  Scenario: A flood of logins from one address hurts nobody else
    Given Ada is a customer
    When an address tries 20 logins
    And it tries another
    Then the address is told "Too many requests; wait before the next"
    And Ada can go on

  Scenario: Nobody reserves the stock without paying
    Given Ada is a customer
    And there are 100 lamps at 12.50 EUR each
    And Ada has ordered 15 lamps
    When Ada orders 6 lamps
    Then Ada is told "Too many pieces of one product are reserved for you and not paid"
    And 85 lamps are left
    When Ada pays with a good card
    And Ada orders 6 lamps
    Then the order is waiting for payment

  Scenario: Cards are not tried out
    Given Ada is a customer
    And there are 10 lamps at 12.50 EUR each
    And Ada has ordered 1 lamps
    And 10 cards of Ada were declined
    When Ada pays with a good card
    Then Ada is told "Too many payments of this order were declined"
    And the order is waiting for payment
